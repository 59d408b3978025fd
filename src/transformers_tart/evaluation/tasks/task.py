"""Tasks: labeled texts, images or recordings, from which support sets are drawn."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import torch
from transformers.utils import logging

from transformers_tart.inputs.balance import classes_in_turn
from transformers_tart.inputs.modality import MODALITIES as RECORDS
from transformers_tart.inputs.modality import TEXT, Modality
from transformers_tart.inputs.texts import Text


logger = logging.get_logger(__name__)

Item: TypeAlias = Text | bytes

SAMPLINGS = ("balanced", "natural")
MODALITIES = {each.name: each for each in RECORDS}


@dataclass(frozen=True)
class Task:
    """A classification task. Images and audio are the bytes of encoded files (png, jpeg, wav, flac, ...)."""

    name: str
    label_names: tuple[str, ...]  # of the classes, in order
    train_texts: list[Item]  # texts, (text, text_pair) tuples or files for support sets
    train_labels: list[int]  # indices in `label_names`
    test_texts: list[Item]  # to classify
    test_labels: list[int]
    modality: Modality = TEXT  # or its name

    def __post_init__(self) -> None:
        if not isinstance(self.modality, Modality):
            if self.modality not in MODALITIES:
                raise ValueError(f'modality is "{self.modality}"; it must be one of {tuple(MODALITIES)}.')
            object.__setattr__(self, "modality", MODALITIES[self.modality])
        for part, items, labels in (
            ("train", self.train_texts, self.train_labels),
            ("test", self.test_texts, self.test_labels),
        ):
            if not items or len(items) != len(labels):
                raise ValueError(
                    f"The {part} split of {self.name} has {len(items)} {self.noun} and {len(labels)} labels."
                )
            is_text = self.modality.is_tokenized
            odd = [item for item in items if isinstance(item, bytes) == is_text]
            if odd:
                form = "strings or pairs of them" if is_text else "bytes of encoded files"
                raise ValueError(f"The {self.noun} of {self.name} must be {form}; {len(odd)} are not.")
        if len(set(self.train_labels)) < 2:
            raise ValueError(
                f"All training {self.noun} of {self.name} have one label; a task has two classes or more."
            )
        known = range(len(self.label_names))
        if not set(self.train_labels) | set(self.test_labels) <= set(known):
            raise ValueError(f"A label of {self.name} is none of its {len(self.label_names)} classes.")

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.label_names)

    @property
    def noun(self) -> str:
        """Plural noun of the inputs in messages, such as texts."""
        return self.modality.plural

    @cached_property
    def digest(self) -> str:
        """Digest of the classes and of all rows."""
        found = hashlib.sha256(repr(self.label_names).encode())
        for item in (*self.train_texts, self.train_labels, *self.test_texts, self.test_labels):
            found.update(repr(item).encode())
        return found.hexdigest()[:16]

    def draw_support(self, k: int, seed: int, sampling: str = "balanced") -> list[int]:
        """Draw the indices of k training inputs; with one seed, larger support sets contain the smaller ones.

        The sampling `"balanced"` takes the classes in turn, as long as they last; `"natural"` ignores the classes.
        """
        if sampling not in SAMPLINGS:
            raise ValueError(f'sampling is "{sampling}"; it must be one of {SAMPLINGS}.')
        if k == 0:
            return []
        if not 2 <= k <= len(self.train_texts):
            raise ValueError(
                f"k is {k}; {self.name} has {len(self.train_texts)} training {self.noun}: give k from 2 to these, "
                'or more rows. A table without a column "split" keeps three quarters of its rows for tests.'
            )
        order = torch.randperm(len(self.train_texts), generator=torch.Generator().manual_seed(seed))
        if sampling == "balanced":
            order = order[classes_in_turn(torch.tensor(self.train_labels)[order])]
        chosen = order[:k].tolist()
        if len({self.train_labels[i] for i in chosen}) < 2:
            raise ValueError(
                f"The {k} examples of {self.name} drawn with seed {seed} are all of one class; draw more."
            )
        return chosen

    def size_of(self, per_class: int) -> int:
        """Return the size of a balanced support set of `per_class` examples of each class, or all of a rarer one."""
        return sum(min(per_class, count) for count in Counter(self.train_labels).values())

    def without_leaks(self) -> "Task":
        """Return the task without training inputs that are in the test split too."""
        tested = set(self.test_texts)
        kept = [i for i, item in enumerate(self.train_texts) if item not in tested]
        if len(kept) == len(self.train_texts):
            return self
        logger.warning(
            f"{len(self.train_texts) - len(kept)} training {self.noun} of {self.name} stand in the test split too; "
            "they are left out of support sets."
        )
        return self._select("train", kept)

    def with_tests(self, count: int | None, seed: int) -> "Task":
        """Return the task with at most `count` test inputs, drawn with the shares of the classes."""
        chosen = draw_with_shares(self.test_labels, count, seed)
        if len(chosen) == len(self.test_texts):
            return self
        return self._select("test", chosen)

    def _select(self, split: str, chosen: Sequence[int]) -> "Task":
        names = f"{split}_texts", f"{split}_labels"
        columns: dict[str, Any] = {name: [getattr(self, name)[i] for i in chosen] for name in names}
        return replace(self, **columns)


def draw_with_shares(labels: Sequence[int], count: int | None, seed: int) -> list[int]:
    """Draw at most `count` rows with the shares of the classes, and return their indices in ascending order."""
    if count is not None and count < 1:
        raise ValueError(f"The number of test texts is {count}; it must be at least 1.")
    if count is None or count >= len(labels):
        return list(range(len(labels)))
    totals, seen = Counter(labels), Counter[int]()
    places = []  # an order whose every prefix has about the shares of the whole
    for i in torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed)).tolist():
        seen[labels[i]] += 1
        places.append(((seen[labels[i]] - 0.5) / totals[labels[i]], i))
    return sorted(i for _, i in sorted(places)[:count])
