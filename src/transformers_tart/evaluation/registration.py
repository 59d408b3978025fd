"""Registration of the evaluator with `evaluate`, when that is imported and not before."""

import importlib.util
import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any


TASK = "tart-classification"
DEFAULT_METRIC = "accuracy"
REGISTRY = "evaluate.evaluator"


def register_when_imported(build: Callable[..., Any]) -> None:
    """Make `evaluate.evaluator("tart-classification")` call `build`.

    `evaluate` takes seconds to import. Where it is not imported yet, its own import registers the evaluator.
    """

    def register(module: ModuleType) -> None:
        module.SUPPORTED_EVALUATOR_TASKS[TASK] = {"implementation": build, "default_metric_name": DEFAULT_METRIC}

    if REGISTRY in sys.modules:
        register(sys.modules[REGISTRY])
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder(register))


class _Finder(MetaPathFinder):
    """Import hook that registers the evaluator after the registry of `evaluate` is imported."""

    def __init__(self, register: Callable[[ModuleType], None]):
        self.register = register

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
            self.register(module)

        spec.loader.exec_module = run_and_register  # type: ignore[method-assign]
        return spec
