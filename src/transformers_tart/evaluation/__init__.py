"""What TART is compared with on the same frozen model.

`evaluate.evaluator("tart-classification")` works from here on, where `evaluate` is installed. `TartEvaluator`,
`TartMetric` and `TartSuite` are imported when they are first asked for.
"""

from importlib import import_module
from typing import Any

from transformers_tart.evaluation.registration import register_when_imported


_MODULES = {"TartEvaluator": "evaluator", "TartMetric": "metric", "TartSuite": "suite"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


register_when_imported()

__all__ = ["TartEvaluator", "TartMetric", "TartSuite"]
