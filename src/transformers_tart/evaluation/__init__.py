"""What TART is compared with on the same frozen model.

`TartEvaluator`, `TartMetric` and `TartSuite` are imported when they are first asked for; with the first of them comes
`evaluate.evaluator("tart-classification")`.
"""

from importlib import import_module
from typing import Any


_MODULES = {"TartEvaluator": "evaluator", "TartMetric": "metric", "TartSuite": "suite"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


__all__ = ["TartEvaluator", "TartMetric", "TartSuite"]
