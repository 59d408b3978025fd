"""Material of which label hints are built: the texts of the labels, their embeddings, and the vocabulary head."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from transformers_tart.backbones.vocabulary import HeadRows
from transformers_tart.inputs.views import View


@dataclass(frozen=True)
class HintSource:
    """The labels of a task, and the model that reads them.

    Attributes:
        texts: text of each class, `None` for names without meaning.
        embeddings: embeddings (classes with a text, layers of all views, hidden) of the texts in their template.
        views: views of the model.
        counts: number of layers of each view.
        tokenizer: tokenizer of the backbone.
        read_head: function from token ids to their rows of the vocabulary head, `None` where there is no head.
    """

    texts: tuple[str | None, ...]
    embeddings: Tensor
    views: tuple[View, ...]
    counts: tuple[int, ...]
    tokenizer: PreTrainedTokenizerBase
    read_head: Callable[[Sequence[int]], HeadRows | None]

    @property
    def named(self) -> list[int]:
        """Numbers of the classes that have a text."""
        return [number for number, text in enumerate(self.texts) if text is not None]

    def slots(self, number: int) -> range:
        """Return the places of the layers of a view among those of all views."""
        start = sum(self.counts[:number])
        return range(start, start + self.counts[number])
