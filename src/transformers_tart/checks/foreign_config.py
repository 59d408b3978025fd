"""Configs of backbones whose classes this package does not have."""

from typing import Any

from transformers.configuration_utils import PreTrainedConfig

from transformers_tart.checks.bounds import check_fields


class ForeignConfig(PreTrainedConfig):
    """Config of a backbone whose class is code of its repository: the fields as they are."""

    foreign_type: str = ""

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> "ForeignConfig":
        """Build one from the fields of a config of another class."""
        others = {name: value for name, value in fields.items() if name not in ("model_type", "foreign_type")}
        check_fields(cls, fields.get("dtype"), others)
        return cls(foreign_type=str(fields["model_type"]), **others)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields under their own model type."""
        fields = super().to_dict()
        return {**fields, "model_type": fields.pop("foreign_type")}
