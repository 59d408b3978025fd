"""Modalities: the kinds of inputs, one record each.

A record holds all that differs between texts, images, recordings and other inputs; code for every modality reads it
there. A new modality is a record with its reader, a config class and a model class (`CONTRIBUTING.md`).
"""

import numbers
import os
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
import torch
from PIL.Image import Image, fromarray
from torch import Tensor
from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoTokenizer, PreTrainedTokenizerBase

from transformers_tart.inputs.audio import read_audio
from transformers_tart.inputs.containers import PAIR, can_iterate
from transformers_tart.inputs.images import read_image
from transformers_tart.inputs.sources import BYTES
from transformers_tart.inputs.texts import parse_text


# (processor, input, place for messages) -> features, each with a batch axis of length 1
Reader = Callable[[Any, object, str], Mapping[str, Tensor]]


class Modality(str):
    r"""
    A kind of input: a record of facts that does not change. It is a string, its name, and so serves as column and key.

    Args:
        name (`str`):
            Key of an example and column of a table.
        plural (`str`):
            Noun for several inputs in messages and on cards.
        auto_processor (`type`):
            Auto class of transformers that loads the processor.
        processor_argument (`str`):
            Argument and attribute of `Pipeline` for the processor.
        read (`Callable`, *optional*):
            Reader of one input: `(processor, input, place)` to the features that the backbone takes, each with a batch
            axis. Raises ValueError, TypeError or OSError with a message that begins with the place.
        main_inputs (`tuple[str, ...]`, *optional*):
            Values of `main_input_name` by which models are recognized that do not state their `input_modalities`.
        processor_files (`tuple[str, ...]`, *optional*):
            Files of which a repository with a processor has at least one.
        values_per_token (`int`, *optional*, defaults to 1):
            Numbers of the main input that become about one token of the backbone; limits the size of batches.
        max_dims (`int`, *optional*, defaults to 1):
            Largest number of dimensions of an array that is a single input.
        array_dtype (`str`, *optional*, defaults to `"float32"`):
            Dtype of the array that error messages suggest in place of lists of numbers.
        is_padded (`bool`, *optional*, defaults to `False`):
            Whether inputs differ in length, so that a mask or equal frames at the end mark padding.
        blank (`Callable`, *optional*):
            Maker of an input without content, which shows the shape of embeddings where there is no other input.
        suffixes (`tuple[str, ...]`, *optional*):
            Suffixes of files of this modality, in lower case. With any, strings in tables are paths.
        feature (`str`, *optional*):
            Class of the columns in `datasets` that hold encoded files.
        likely_columns (`tuple[str, ...]`, *optional*):
            Usual names of columns of inputs, which messages propose where a table lacks the column.
        card_examples (`str`, *optional*), card_query (`str`, *optional*):
            Examples, as code, and an input to classify, on model cards.
    """

    plural: str
    auto_processor: Any
    processor_argument: str
    read: Reader | None = None
    main_inputs: tuple[str, ...] = ()
    processor_files: tuple[str, ...] = ("preprocessor_config.json", "processor_config.json")
    values_per_token: int = 1
    max_dims: int = 1
    array_dtype: str = "float32"
    is_padded: bool = False
    blank: Callable[[], Any] | None = None
    suffixes: tuple[str, ...] = ()
    feature: str | None = None
    likely_columns: tuple[str, ...] = ()
    card_examples: str = "[...]"
    card_query: str = "..."

    # Whether the processor is a tokenizer: inputs can be truncated, stand in prompts and be stored with a task.
    is_tokenized = False

    def __new__(cls, name: str, **facts: Any) -> Self:
        fields = Modality.__annotations__.keys()
        missing = [field for field in fields if field not in facts and not hasattr(cls, field)]
        if missing or not facts.keys() <= fields:
            raise TypeError(f"A modality has the facts {[*fields]}; got {[*facts]}, without {missing}.")
        modality = super().__new__(cls, name)
        vars(modality).update(facts)
        return modality

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, Any]]:
        return (self.name,), dict(vars(self))

    def __setattr__(self, field: str, value: Any) -> None:
        raise AttributeError(f"{field} of a modality cannot be changed; write another record.")

    @property
    def name(self) -> str:
        """The name as a plain string."""
        return str.__str__(self)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of a table that hold an input, the required one first."""
        return (self.name,)

    def parse(self, item: Any, where: str) -> Any:
        """Check the form of one input without reading it; return it in a plain form."""
        return item

    def is_one(self, inputs: Any) -> bool:
        """Return whether a value is a single input rather than many.

        Raises:
            TypeError: On lists of numbers, each of which would be an input, and on values that are neither.
        """
        if isinstance(inputs, (list, tuple)) and inputs and all(map(_is_numeric, inputs)):
            raise TypeError(
                f"The input is a {type(inputs).__name__} of {type(inputs[0]).__name__}; give the numbers of one "
                f"{self.name} input as an array: numpy.asarray(..., dtype='{self.array_dtype}')."
            )
        if isinstance(inputs, (str, *BYTES, os.PathLike, Mapping, Image, np.generic)) or hasattr(inputs, "read"):
            return True  # an open file is refused as one input, before its lines are read as many
        if isinstance(inputs, (np.ndarray, torch.Tensor)):
            is_of_names = isinstance(inputs, np.ndarray) and inputs.dtype.kind in "OUS"
            return inputs.ndim <= self.max_dims and not is_of_names
        return not can_iterate(inputs)

    def is_processor(self, processor: Any) -> bool:
        """Return whether an object can be the processor of this modality."""
        return callable(processor) and hasattr(processor, "save_pretrained")

    def cost(self, num_values: int) -> int:
        """Return about how many tokens the backbone makes of a main input of so many numbers."""
        return -(-num_values // self.values_per_token)

    def keep_encoded(self, table: Any, column: str | None = None) -> Any:
        """Return a `datasets.Dataset` whose column of this modality gives encoded files instead of decoded ones."""
        import datasets

        if self.feature is None:
            return table
        return table.cast_column(column or self.name, getattr(datasets, self.feature)(decode=False))


class TextModality(Modality):
    """The modality of texts and pairs of texts."""

    is_tokenized = True

    @property
    def columns(self) -> tuple[str, ...]:
        """The text and, for pairs, the second text."""
        return (self.name, PAIR)

    def parse(self, item: Any, where: str) -> Any:
        """Return a text or a pair; see [`parse_text`]."""
        return parse_text(item, where)

    def is_one(self, inputs: Any) -> bool:
        """Return whether a value is a string or a mapping.

        Raises:
            TypeError: On values that are neither a text nor an iterable of texts.
        """
        if isinstance(inputs, (str, Mapping)):
            return True
        if isinstance(inputs, BYTES) or not can_iterate(inputs):
            raise TypeError(
                f"The input is {type(inputs).__name__}; give a text, a list of texts or a generator of texts."
            )
        return False

    def is_processor(self, processor: Any) -> bool:
        """Return whether an object is a tokenizer."""
        return isinstance(processor, PreTrainedTokenizerBase)


def _is_numeric(item: Any) -> bool:
    """Return whether this is a number, or a list that begins with one, or with such a list."""
    while isinstance(item, (list, tuple)) and item:
        item = item[0]
    return isinstance(item, numbers.Number)


def process(where: str, processor: Any, *given: Any, **options: Any) -> Any:
    """Run a processor on one input, and name the place where it fails."""
    try:
        return processor(*given, **options, return_tensors="pt")
    except (ValueError, TypeError, RuntimeError, AssertionError, IndexError) as err:
        name = type(processor).__name__
        raise ValueError(f"{where} cannot be prepared by {name}: {err}. Leave it out, or give a larger one.") from err


def _read_image(processor: Any, item: object, where: str) -> Mapping[str, Tensor]:
    return process(where, processor, images=read_image(item, where))


def _read_audio(processor: Any, item: object, where: str) -> Mapping[str, Tensor]:
    rate = processor.sampling_rate
    return process(where, processor, read_audio(item, where, rate), sampling_rate=rate, return_attention_mask=True)


def _blank_text() -> str:
    return "..."


def _blank_image() -> Image:
    return fromarray(np.zeros((64, 64, 3), dtype=np.uint8))


def _blank_audio() -> np.ndarray:
    return np.zeros(16000, dtype=np.float32)


TEXT = TextModality(
    name="text",
    plural="texts",
    auto_processor=AutoTokenizer,
    processor_argument="tokenizer",
    main_inputs=("input_ids",),
    processor_files=("tokenizer_config.json", "tokenizer.json"),
    blank=_blank_text,
    likely_columns=(
        *("sentence", "review", "content", "body", "message", "tweet", "comment", "utterance", "question", "query"),
        *("document", "article", "description", "post", "sms", "email", "headline", "title", "input", "words"),
    ),
    card_examples=(
        '[{"text": "free entry, text WIN now", "label": "spam"}, {"text": "see you at eight", "label": "ham"}]'
    ),
    card_query="a text",
)
IMAGE = Modality(
    name="image",
    plural="images",
    auto_processor=AutoImageProcessor,
    processor_argument="image_processor",
    read=_read_image,
    main_inputs=("pixel_values",),
    values_per_token=16 * 16 * 3,  # a patch of three colors
    max_dims=3,
    blank=_blank_image,
    array_dtype="uint8",
    suffixes=(".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"),
    feature="Image",
    likely_columns=("img", "picture", "photo", "pixels", "image_path", "file_name", "file", "path", "url"),
    card_examples='[{"image": "tabby.jpg", "label": "cat"}, {"image": "beagle.jpg", "label": "dog"}]',
    card_query="new.jpg",
)
AUDIO = Modality(
    name="audio",
    plural="recordings",
    auto_processor=AutoFeatureExtractor,
    processor_argument="feature_extractor",
    read=_read_audio,
    main_inputs=("input_values", "input_features"),
    values_per_token=320,  # 20 ms at 16 kHz
    max_dims=2,
    is_padded=True,
    blank=_blank_audio,
    suffixes=(".wav", ".flac", ".ogg", ".mp3"),
    feature="Audio",
    likely_columns=("recording", "speech", "sound", "wav", "clip", "audio_path", "file_name", "file", "path", "url"),
    card_examples='[{"audio": "yes.wav", "label": "yes"}, {"audio": "no.wav", "label": "no"}]',
    card_query="new.wav",
)
# The modalities of this package. Of a backbone that reads several, the first of them is classified.
MODALITIES = (IMAGE, AUDIO, TEXT)
