"""Evaluation of composed models beside other methods on the same frozen backbone.

`evaluate.evaluator("tart-classification")` works after this import. `TartEvaluator`, `TartMetric` and `TartSuite` are
imported on first use, and need `pip install "transformers-tart[evaluation]"`.
"""

from importlib import import_module
from typing import Any

from transformers_tart.evaluation.registration import register_when_imported


_MODULES = {"TartEvaluator": "evaluator", "TartMetric": "metric", "TartSuite": "suite"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from transformers_tart.checks.packages import import_package

    import_package("evaluate", "evaluation", name)
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def _build_evaluator(**options: Any) -> Any:
    return __getattr__("TartEvaluator")(**options)


register_when_imported(_build_evaluator)

__all__ = ["TartEvaluator", "TartMetric", "TartSuite"]
