"""The options that all views of a model share, and the differences between those of two models."""

from dataclasses import asdict, dataclass
from typing import Any

from transformers_tart.checks.arguments import shorten
from transformers_tart.inputs.views import IN_CONTEXT_PROTOCOLS, View, as_views


@dataclass(frozen=True)
class EmbeddingOptions:
    """The options that determine an embedding, beside the backbone and its input.

    Args:
        protocol (`str`), max_length (`int`), prompt (`str`), lower_case (`bool`), *optional*:
            As in [`TartConfig`].
        views (`tuple[View, ...]`, *optional*):
            The views of each input; the mean over the last layer when not given.
    """

    protocol: str = "stream"
    max_length: int | None = None
    views: tuple[View, ...] = (View("mean", layers=-1),)
    prompt: str | None = None
    lower_case: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "views", as_views(self.views))

    @property
    def has_prompt(self) -> bool:
        """The presence of a prompt of the examples before each query."""
        return self.protocol in IN_CONTEXT_PROTOCOLS

    @property
    def template(self) -> str | None:
        """The template of the examples in a prompt; `None` for the paper's."""
        return self.views[0].template if self.has_prompt else None

    def differing(self, other: "EmbeddingOptions") -> list[str]:
        """Return the names of the fields that differ."""
        mine, its = _plain_fields(self, other), _plain_fields(other, self)
        return [name for name in mine if mine[name] != its[name]]

    def differences(self, other: "EmbeddingOptions") -> tuple[str, str] | None:
        """Return the fields that differ, with the values of each side; `None` if all are equal."""
        if not (names := self.differing(other)):
            return None
        mine, its = _plain_fields(self, other), _plain_fields(other, self)
        first, second = (", ".join(f"{name}={shorten(side[name])}" for name in names) for side in (mine, its))
        return first, second


def _plain_fields(options: EmbeddingOptions, other: EmbeddingOptions) -> dict[str, Any]:
    """Return the values to compare, those of each view apart where both have views of the same names."""
    names = [view.name for view in options.views]
    shared = ("protocol", "max_length", "prompt", "lower_case")
    found: dict[str, Any] = {**{field: getattr(options, field) for field in shared}, "views": names}
    if names == [view.name for view in other.views]:
        for view in options.views:
            prefix = f"{view.name}." if len(names) > 1 else ""
            found |= {f"{prefix}{field}": value for field, value in asdict(view).items()}
    elif len(names) == len(other.views) == 1:
        found |= {field: value for field, value in asdict(options.views[0]).items() if field != "name"}
        del found["views"]
    return found
