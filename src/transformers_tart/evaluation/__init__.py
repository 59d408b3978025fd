"""Evaluation of composed models beside other methods on the same frozen backbone.

`evaluate.evaluator("tart-classification")` works after this import. `TartEvaluator`, `TartMetric` and `TartSuite` are
imported on first use, and need `pip install "transformers-tart[evaluation]"`.
"""

import importlib.util
import sys
from importlib import import_module
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any


TASK = "tart-classification"
DEFAULT_METRIC = "accuracy"
REGISTRY = "evaluate.evaluator"
_MODULES = {"TartEvaluator": "evaluator", "TartMetric": "metric", "TartSuite": "suite"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from transformers_tart.checks.packages import import_package

    import_package("evaluate", "evaluation", name)
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def _build_evaluator(**options: Any) -> Any:
    return __getattr__("TartEvaluator")(**options)


def _register(module: ModuleType) -> None:
    module.SUPPORTED_EVALUATOR_TASKS[TASK] = {
        "implementation": _build_evaluator,
        "default_metric_name": DEFAULT_METRIC,
    }


class _Finder(MetaPathFinder):
    """Import hook that registers the evaluator after `evaluate`, which takes seconds, is imported, and not before."""

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> Any:
        if fullname != REGISTRY:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def run_and_register(module: ModuleType) -> None:
            run(module)
            _register(module)

        spec.loader.exec_module = run_and_register  # type: ignore[method-assign]
        return spec


if REGISTRY in sys.modules:
    _register(sys.modules[REGISTRY])
elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
    sys.meta_path.insert(0, _Finder())

__all__ = ["TartEvaluator", "TartMetric", "TartSuite"]
