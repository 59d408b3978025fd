"""Reports of results: tables, plots and a page."""

from transformers_tart.evaluation.report.comparison import Comparison
from transformers_tart.evaluation.report.page import write_report


__all__ = ["Comparison", "write_report"]
