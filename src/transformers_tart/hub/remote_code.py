"""Remote code of a saved repository, for loading with `trust_remote_code=True` without importing this package.

The repository holds no model code, only a module that imports this package. Where the package is missing,
transformers sees the import, refuses, and names the package to install.
"""

from pathlib import Path

from transformers_tart.files import SAVED


STUB_NAME = SAVED.removesuffix(".py")
CLASSES = (
    "TartAudioConfig",
    "TartConfig",
    "TartForAudioClassification",
    "TartForImageClassification",
    "TartForSequenceClassification",
    "TartImageConfig",
    "TartReasoner",
    "TartReasonerConfig",
)
STUB = f'''"""The classes of this repository are in a package: `pip install transformers-tart`."""

from transformers_tart import {", ".join(CLASSES)}


__all__ = {list(CLASSES)}
'''


class NoCodeCopy:
    """Mixin for models whose saved repositories have a code map, so that no module is copied into them."""

    auto_map_classes: dict[str, str] = {}

    @classmethod
    def register_for_auto_class(cls, auto_class: object = "AutoModel") -> None:
        """Do nothing: saving writes the code map for all Auto classes of this class."""

    @classmethod
    def write_stub(cls, folder: str | Path) -> dict[str, str]:
        """Write the importing module to a folder and return the `auto_map` of its config."""
        (Path(folder) / SAVED).write_text(STUB)
        return {auto: f"{STUB_NAME}.{name}" for auto, name in cls.auto_map_classes.items()}
