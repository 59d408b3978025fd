"""Scripts beside the cards, as modules."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from unittest.mock import patch


CARDS = Path(__file__).parents[2] / "hub_cards"


def load_script(path: str) -> ModuleType:
    """Import a script by its path in the folder of the cards, as if it was run: it may import those beside it."""
    folder = (CARDS / path).parent
    spec = importlib.util.spec_from_file_location(Path(path).stem, CARDS / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with patch.object(sys, "path", [str(folder), *sys.path]):
        spec.loader.exec_module(module)
    for beside in folder.glob("*.py"):
        sys.modules.pop(beside.stem, None)  # scripts of other cards have the same names
    return module
