"""Registration of the evaluator with `evaluate`, when that is imported and not before."""

import importlib.util
import sys
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any


TASK = "tart-classification"
DEFAULT_METRIC = "accuracy"
REGISTRY = "evaluate.evaluator"


def register_when_imported() -> None:
    """Make `evaluate.evaluator("tart-classification")` a [`TartEvaluator`].

    `evaluate` takes seconds to import. Where it is not imported yet, its own import registers the evaluator.
    """
    if REGISTRY in sys.modules:
        _register(sys.modules[REGISTRY])
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _register(module: ModuleType) -> None:
    module.SUPPORTED_EVALUATOR_TASKS[TASK] = {"implementation": _build, "default_metric_name": DEFAULT_METRIC}


def _build(**options: Any) -> Any:
    from transformers_tart.evaluation.evaluator import TartEvaluator

    return TartEvaluator(**options)


class _Finder(MetaPathFinder):
    """Import hook that registers the evaluator after the registry of `evaluate` is imported."""

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
