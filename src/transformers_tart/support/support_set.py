"""Support sets: labeled embeddings and label hints, and support sets that a reasoner has read."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers.utils import logging

from transformers_tart.backbones.digest import BackboneDigest
from transformers_tart.checks.arguments import as_source, check_kind, shorten
from transformers_tart.checks.label_names import check_label_names
from transformers_tart.embeddings.packing import PackedEmbeddings
from transformers_tart.embeddings.phrases import Phrasing
from transformers_tart.embeddings.prompts import Prompt
from transformers_tart.errors import BackboneMismatchError, CorruptFileError
from transformers_tart.hints.base import LabelHints
from transformers_tart.hub.card import HintFacts
from transformers_tart.inputs.embedding_options import EmbeddingOptions
from transformers_tart.inputs.labels import KINDS, STRINGS
from transformers_tart.support.checks import check_embeddings, check_hints, check_labels
from transformers_tart.support.files import read_fields, write_fields
from transformers_tart.support.keys import check_keys


logger = logging.get_logger(__name__)

SUPPORT_FILE = "support.safetensors"
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True, eq=False)
class SupportSet:
    r"""
    Labeled embeddings.

    Args:
        embeddings (`torch.FloatTensor` of shape `(k, hidden)` or `(k, layers, hidden)`):
            One embedding an example, or one a layer of each view, side by side, as the backbone gives them. `k` may be
            0 where there are hints.
        labels (`torch.LongTensor` of shape `(k,)` or `(k, num_labels)`):
            Indices into `label_names`; or, of examples that may have several labels, 1 for each label and else 0.
        label_names (`tuple[str, ...]`):
            Names of the classes, in order.
        texts (`tuple`, *optional*):
            Texts of the examples, if they are kept.
        prompt ([`Prompt`], *optional*):
            Token ids of the examples in their prompt, for the protocols that read queries after it.
        phrasing ([`Phrasing`], *optional*):
            Token ids of the templates in which queries are read.
        options ([`EmbeddingOptions`], *optional*):
            Options of the embeddings, to which those of a model are compared; `None` if unknown, as in files of
            version 0.1.
        digest ([`BackboneDigest`], *optional*):
            Digest of the backbone that made the embeddings; `None` if unknown.
        packed ([`PackedEmbeddings`], *optional*):
            The embeddings as they are stored; dropped where they are not those of `embeddings`, which are then stored
            themselves.
        hints ([`LabelHints`], *optional*):
            Label hints of the classes.
        given_hints (`torch.FloatTensor` of shape `(k, hints of the user, num_labels)`, *optional*):
            Scores of the examples by the hints of the user.
        keys (`torch.ByteTensor` of shape `(k, 16)`, *optional*):
            Digests of the texts, by which an example is found where the texts are not kept.
        label_kind (`str`, *optional*, defaults to `"strings"`):
            Kind of the labels that were given: `"integers"` and `"booleans"` are answered as such.
        weights (`torch.FloatTensor` of shape `(k,)`, *optional*):
            Weights of the examples, 1 each when not given; one of weight 2 counts as two copies of it.

    Raises:
        ValueError: On lengths that do not fit, labels out of range, of several labels one that no example has or all
            have, embeddings that are not finite, or, without hints, fewer than two classes.
    """

    embeddings: Tensor
    labels: Tensor
    label_names: tuple[str, ...]
    texts: tuple | None = None
    prompt: Prompt | None = None
    options: EmbeddingOptions | None = None
    digest: BackboneDigest | None = None
    phrasing: Phrasing | None = None
    packed: PackedEmbeddings | None = None
    hints: LabelHints | None = None
    given_hints: Tensor | None = None
    keys: Tensor | None = None
    label_kind: str = STRINGS
    weights: Tensor | None = None

    def __post_init__(self) -> None:
        self._check_kinds()
        shapes = (self.embeddings.shape[:1], (len(self.embeddings), len(self.label_names)))
        if self.embeddings.dim() not in (2, 3) or self.labels.shape not in shapes:
            raise ValueError(
                "A support set needs embeddings (k, hidden) or (k, layers, hidden) and labels (k,) or (k, "
                f"{len(self.label_names)}); got {tuple(self.embeddings.shape)} and {tuple(self.labels.shape)}."
            )
        if self.embeddings.dtype not in FLOATS or 0 in self.embeddings.shape[1:]:
            raise ValueError(
                f"The embeddings of a support set must be floating-point numbers, at least one each; got "
                f"{self.embeddings.dtype} of shape {tuple(self.embeddings.shape)}."
            )
        if self.labels.dtype != torch.int64:
            raise ValueError(f"The labels of a support set must be int64, got {self.labels.dtype}.")
        check_hints(self.hints, self.given_hints, len(self), self.num_labels)
        if len(self) or self.hints is None:
            check_labels(self.labels, self.label_names, self.hints is not None)
            check_embeddings(self.embeddings, self.has_two_classes)
        if self.weights is not None and self.weights.shape != self.labels.shape[:1]:
            raise ValueError(f"There are weights {tuple(self.weights.shape)} for {len(self)} examples.")
        if self.texts is not None and len(self.texts) != len(self):
            raise ValueError(f"There are {len(self.texts)} texts for {len(self)} examples.")
        check_keys(self.keys, len(self))
        if self.packed is not None and not self.packed.is_of(self.embeddings):
            object.__setattr__(self, "packed", None)

    def _check_kinds(self) -> None:
        for name in ("embeddings", "labels"):
            tensor = getattr(self, name)
            check_kind(name, tensor, Tensor)
            if tensor.layout != torch.strided or tensor.device.type == "meta":
                raise ValueError(f"{name} must be a dense tensor on a device that holds values.")
        for name in ("label_names", "texts"):
            values = getattr(self, name)
            if values is not None or name == "label_names":
                check_kind(name, values, tuple, list)
                object.__setattr__(self, name, tuple(values))
        check_label_names("label_names", self.label_names)
        if self.label_kind not in KINDS:
            raise ValueError(f"label_kind is {shorten(self.label_kind)}; it must be one of {KINDS}.")
        for text in self.texts or ():
            pieces = text if isinstance(text, tuple) and len(text) == 2 else (text,)
            if not all(isinstance(piece, str) for piece in pieces):
                raise TypeError("texts must hold strings or pairs of strings.")
        kinds: dict[str, type] = {"prompt": Prompt, "options": EmbeddingOptions}
        kinds |= {"digest": BackboneDigest, "phrasing": Phrasing, "packed": PackedEmbeddings, "hints": LabelHints}
        kinds |= {"given_hints": Tensor, "keys": Tensor, "weights": Tensor}
        for name, kind in kinds.items():
            check_kind(name, getattr(self, name), kind, type(None))

    def __len__(self) -> int:
        return self.labels.shape[0]

    def __repr__(self) -> str:
        return f"SupportSet(k={len(self)}, classes={len(self.label_names)}, embeddings={tuple(self.embeddings.shape)})"

    @property
    def num_labels(self) -> int:
        """Number of classes."""
        return len(self.label_names)

    @property
    def is_multi_label(self) -> bool:
        """True where an example may have several labels, or none."""
        return self.labels.dim() == 2

    @property
    def has_two_classes(self) -> bool:
        """True where the examples are of two classes or more; else hints alone are compared."""
        return len(self) > 0 and (self.is_multi_label or bool((self.labels != self.labels[0]).any()))

    def label_set(self, row: int) -> frozenset[str]:
        """Return the names of the labels of an example, given its index."""
        numbers = self.labels[row].nonzero() if self.is_multi_label else self.labels[row]
        return frozenset(self.label_names[number] for number in numbers.flatten().tolist())

    @property
    def storage(self) -> str:
        """Number of examples, and size and dtype of their stored embeddings, in words."""
        if len(self) == 0:
            return f"no examples; hints for {self.num_labels} classes"
        stored = self.embeddings if self.packed is None else self.packed.values
        total = self.embeddings.nbytes if self.packed is None else self.packed.num_bytes
        dtype = str(stored.dtype).removeprefix("torch.")
        return f"{len(self)} examples of {stored[0].nbytes / 1e3:.1f} kB in {dtype}, {total / 1e3:,.1f} kB in all"

    def hint_facts(self) -> HintFacts | None:
        """Return the facts of the label hints for cards, `None` without hints."""
        if (hints := self.hints) is None:
            return None
        return HintFacts(hints.names, hints.template, hints.num_described, len(self) > 0)

    def pack(self) -> "SupportSet | None":
        """Return the support set with its embeddings rounded to packed ones, `None` where these are not smaller."""
        packed = PackedEmbeddings.of(self.embeddings) if len(self) else None
        if packed is None:
            return None
        return replace(self, embeddings=packed.unpack().to(self.embeddings.device), packed=packed)

    def to(self, device: torch.device | str) -> "SupportSet":
        """Return the support set on another device."""
        given = {name: getattr(self, name) for name in ("embeddings", "labels", "hints", "given_hints", "weights")}
        return replace(self, **{name: value.to(device) for name, value in given.items() if value is not None})

    def scores(self) -> Tensor | None:
        """Return the scores (k, hints, classes) of the examples by all hints; `None` without hints."""
        if self.hints is None:
            return None
        embeddings = self.embeddings if self.embeddings.dim() == 3 else self.embeddings[:, None]
        return self.hints.join(self.hints.score(embeddings), self.given_hints)

    def check_single_label(self, what: str) -> None:
        """Raise a ValueError that begins with what there cannot be, where an example may have several labels."""
        if self.is_multi_label:
            raise ValueError(f"{what} are for support sets with one label for each example, and this one has lists.")

    def check_number_of_names(self, names: tuple[str, ...]) -> None:
        """Raise a ValueError unless `config.id2label` has as many names as the support set has classes."""
        if len(names) != self.num_labels:
            raise ValueError(
                f"config.id2label has {len(names)} names, the support set has {self.num_labels} classes; set "
                "config.id2label to a name for each class."
            )

    def check_names(self, names: tuple[str, ...]) -> None:
        """Raise a ValueError unless names of `config.id2label` are as many as the classes, and in their order."""
        self.check_number_of_names(names)
        shared = set(names) & set(self.label_names)
        if any(name in shared and name != own for name, own in zip(names, self.label_names, strict=True)):
            raise ValueError(
                "config.id2label has the names of the support set in another order; encode the examples again with "
                "this model, or correct config.id2label."
            )

    def check_options(self, options: EmbeddingOptions) -> None:
        """Raise a BackboneMismatchError unless the embeddings were made with these options."""
        if self.options is not None and (differing := self.options.differences(options)):
            raise BackboneMismatchError(
                f"The support set was embedded with {differing[0]}, the config of the model has {differing[1]}: "
                "predictions would be wrong. Correct the config, or encode the examples again with this model."
            )

    def check_backbone(self, digest: BackboneDigest) -> None:
        """Raise a BackboneMismatchError unless the embeddings were made by the backbone of this digest."""
        if self.digest is None:
            return
        if not digest.is_comparable(self.digest):
            logger.warning_once(
                f"The support set was embedded by a backbone with quantization {self.digest.quantization}, this one "
                f"has {digest.quantization}: whether both are the same model is not checked."
            )
        elif differences := self.digest.differences(digest):
            raise BackboneMismatchError(
                f"The support set was embedded by the backbone {_describe(self.digest)}, the model now has "
                f"{_describe(digest)}, and {'; '.join(differences)}: predictions would be wrong. Use the former "
                "backbone (backbone=...), or encode the examples again with this one."
            )

    def save(self, path: str | Path, include_texts: bool = False) -> None:
        """Write a safetensors file. It holds the token ids of a prompt, from which its texts can be decoded.

        Args:
            path (`str` or `Path`):
                Path of the file.
            include_texts (`bool`, *optional*, defaults to `False`):
                Whether to store the texts too.

        Raises:
            ValueError: If texts are to be stored and there are none.
        """
        if include_texts and self.texts is None:
            raise ValueError("This support set holds no texts; build it from examples to store them.")
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        write_fields(Path(as_source(path, "path")), values, include_texts)

    @classmethod
    def load(cls, path: str | Path) -> "SupportSet":
        """Read a file that [`SupportSet.save`] wrote.

        Raises:
            CorruptFileError: When the file is damaged or is no support set.
        """
        try:
            return cls(**read_fields(path))
        except (SafetensorError, AttributeError, LookupError, RuntimeError, ValueError, TypeError) as err:
            raise CorruptFileError(
                f"{Path(path).name} is no readable support set ({err}); download it again, or fit the task again "
                "from its examples."
            ) from err


def check_is_support(support: Any) -> None:
    """Raise a TypeError unless an argument is a support set."""
    if not isinstance(support, SupportSet):
        raise TypeError(
            f"support is {shorten(support)} of type {type(support).__name__}; give a SupportSet, such as "
            "model.encode_support(examples, tokenizer)."
        )


def _describe(digest: BackboneDigest) -> str:
    return f'"{digest.name or "without a name"}" (digest {digest.hexdigest})'


__all__ = ["SUPPORT_FILE", "SupportSet", "check_is_support"]
