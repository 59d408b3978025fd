"""What a saved repository carries for people who load it with `trust_remote_code=True`, this package not imported.

The repository holds no model code, only a module that imports this package. Where the package is missing,
transformers sees the import, refuses, and names the package to install.
"""

from pathlib import Path


STUB_NAME = "transformers_tart_classes"
STUB = '''"""The classes of this repository live in a package: `pip install transformers-tart`."""

from transformers_tart import (
    TartAudioConfig,
    TartConfig,
    TartForAudioClassification,
    TartForImageClassification,
    TartForSequenceClassification,
    TartImageConfig,
    TartReasoner,
    TartReasonerConfig,
)


__all__ = [
    "TartAudioConfig",
    "TartConfig",
    "TartForAudioClassification",
    "TartForImageClassification",
    "TartForSequenceClassification",
    "TartImageConfig",
    "TartReasoner",
    "TartReasonerConfig",
]
'''


class NoCodeCopy:
    """Mixin: every saved repository has its code map already, so no module is ever copied into one."""

    auto_map_classes: dict[str, str] = {}

    @classmethod
    def register_for_auto_class(cls, auto_class: object = "AutoModel") -> None:
        """Do nothing: saving writes the code map for all Auto classes of this class."""

    @classmethod
    def write_stub(cls, folder: str | Path) -> dict[str, str]:
        """Write the importing module to a folder and return the `auto_map` of its config."""
        (Path(folder) / f"{STUB_NAME}.py").write_text(STUB)
        return {auto: f"{STUB_NAME}.{name}" for auto, name in cls.auto_map_classes.items()}


__all__ = ["NoCodeCopy"]
