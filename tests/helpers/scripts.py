"""Scripts beside the cards, as modules."""

import importlib.util
from pathlib import Path
from types import ModuleType


CARDS = Path(__file__).parents[2] / "hub_cards"


def load_script(path: str) -> ModuleType:
    """Import a script by its path in the folder of the cards."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, CARDS / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
