"""Results as tables, plots and a page: what is compared, how sure it is, and how it looks."""

from transformers_tart.evaluation.report.page import Comparison, write_report


__all__ = ["Comparison", "write_report"]
