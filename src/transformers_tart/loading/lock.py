"""A lock for loading: transformers replaces functions of torch for all threads while it loads a model.

Loads that overlap leave some of them replaced, and models that are loaded later without their weights.
"""

import functools
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar


P = ParamSpec("P")
R = TypeVar("R")

_LOADING = threading.RLock()


def one_at_a_time(load: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function that loads or builds a model, so that threads call it in turn."""

    @functools.wraps(load)
    def wait_and_load(*args: P.args, **kwargs: P.kwargs) -> R:
        with _LOADING:
            return load(*args, **kwargs)

    return wait_and_load
