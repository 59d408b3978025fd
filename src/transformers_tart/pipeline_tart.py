"""The `tart-classification` pipeline."""

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import ModelCard
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from transformers_tart.answers.embedding import embed_inputs
from transformers_tart.answers.pipeline import LASTING, AnsweringPipeline, take_classes
from transformers_tart.backbones.adapters import unwrap
from transformers_tart.backbones.origin import check_folder
from transformers_tart.backbones.reference import choose_processor
from transformers_tart.checks.arguments import as_count, as_flag, as_source, check_device
from transformers_tart.embeddings.arguments import as_limit
from transformers_tart.files import staged
from transformers_tart.hub.push import HubMixin, keep_edited_card
from transformers_tart.inputs.columns import TableOptions, take_table_arguments
from transformers_tart.inputs.examples import RawExamples
from transformers_tart.inputs.text_options import refuse_arguments
from transformers_tart.inputs.views import COMPOSITION, View
from transformers_tart.loading.download import take
from transformers_tart.modeling_base import TartPreTrainedModel
from transformers_tart.modeling_tart import PipelineModel, compose_any
from transformers_tart.repository import OWNED
from transformers_tart.support import SupportSet


class TartClassificationPipeline(HubMixin, AnsweringPipeline):
    r"""
    Few-shot classification of texts, images or audio with a frozen model.

    ```python
    >>> import transformers_tart
    >>> from transformers import pipeline

    >>> examples = [{"text": "free entry, WIN now", "label": "spam"}, {"text": "see you at eight", "label": "ham"}]
    >>> classify = pipeline("tart-classification", model="EleutherAI/pythia-160m", examples=examples)
    >>> classify("text YES to claim your prize")
    ```

    Args:
        model ([`TartPreTrainedModel`] or `PreTrainedModel`):
            A composed model, or any backbone, which is composed with the reasoner inside this package. `pipeline`
            takes Hub ids and folders too, and defaults to the small language model inside this package.
        tokenizer (`PreTrainedTokenizerBase`, *optional*), image_processor (`BaseImageProcessor`, *optional*),
        feature_extractor (`SequenceFeatureExtractor`, *optional*), processor (`ProcessorMixin`, *optional*):
            Processor of the backbone's inputs; loaded from its repository when not given.
        examples (`list[dict]`, `list[tuple]`, `dict[str, list]`, a table, a dataset, `str` or `Path`, *optional*):
            The support set, as in [`set_examples`]; the one stored with the model when not given.
        text_column, text_pair_column, image_column, audio_column, label_column, split (`str`, *optional*):
            As in [`set_examples`]. The columns are those of later examples and inputs too.
        candidate_labels (`str` or `list[str]`, *optional*), hints (`str`, `Callable`, `dict` or `list`, *optional*),
        hypothesis_template (`str`, *optional*), label_descriptions (`dict[str, str]`, *optional*),
        unlabeled (`list`, *optional*):
            As in [`set_examples`]. Candidate labels need no examples, and are answered in the format of zero-shot
            classification. Later examples and candidate labels take over `hints` and `hypothesis_template`.
        backbone (`PreTrainedModel` or `str`, *optional*), views (`str`, [`View`] or `list`, *optional*):
            A backbone in place of the one that the task refers to, and views in place of those of a task without
            examples, or of the default, as in [`TartPreTrainedModel.from_backbone`].
        embedding_cache (`str` or `Path`, *optional*):
            Folder in which embeddings are kept from one run to the next, under hashes of the inputs.
        prompt (`str`), prompt_name (`str`), ..., *optional*:
            Other options of a backbone that is not composed yet, as in [`TartPreTrainedModel.from_backbone`].
        top_k (`int`), abstain_below (`float`), ..., *optional*:
            Options of a call, for those calls that do not give them.
    """

    # loaded here: transformers would ask on the terminal whether code of the repository may run
    _load_tokenizer = False  # type: ignore[assignment]
    _load_processor = False  # type: ignore[assignment]
    _load_image_processor = False  # type: ignore[assignment]
    _load_feature_extractor = False  # type: ignore[assignment]
    _load_video_processor = False  # type: ignore[assignment]

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
        examples: RawExamples | None = None,
        embedding_cache: str | os.PathLike | None = None,
        image_processor: Any = None,
        feature_extractor: Any = None,
        processor: Any = None,
        backbone: PreTrainedModel | str | os.PathLike | None = None,
        views: str | View | Sequence[str | View] | None = None,
        **kwargs: Any,
    ):
        classes = take_classes(kwargs)
        table = take_table_arguments(kwargs)
        split = {"split": table.pop("split", None)}
        self._lasting = {**table, **{name: classes[name] for name in LASTING if name in classes}}
        kwargs.pop("local_files_only", None)  # `pipeline` has used it already
        check_device(kwargs.get("device"))
        kwargs["batch_size"] = as_limit(kwargs.get("batch_size"), "batch_size")
        self._cache_folder = None if embedding_cache is None else as_source(embedding_cache, "embedding_cache")
        model = load_model(model, {"backbone": backbone, "views": views}, kwargs)
        given = {"tokenizer": tokenizer, "image_processor": image_processor, "feature_extractor": feature_extractor}
        TableOptions.of(table, model.config.modality.columns)
        super().__init__(model=model, **choose_processor(model, {**given, "processor": processor}), **kwargs)
        if examples is not None or classes.get("candidate_labels") is not None:
            self.set_examples(examples, **classes, **split)
        elif given_in_vain := sorted(classes.keys() - set(LASTING)):
            raise ValueError(f"{given_in_vain} need examples or candidate_labels; give one of these too.")

    def set_examples(self, examples: RawExamples | None, **classes: Any) -> None:
        r"""
        Replace the stored support set; `None` without candidate labels removes it.

        Args:
            examples (`list[dict]`, `list[tuple]`, `dict[str, list]`, a table, a dataset, `str` or `Path`, *optional*):
                The labeled examples: rows, tuples of an input and its label, or a table of pandas, polars, Arrow or
                `datasets`, or the path of one (csv, tsv, json, jsonl, parquet). Other columns are ignored. Integer and
                boolean labels are answered as they are given. Where an example may have several labels, or none, the
                label of each is a list, and each label is scored on its own.
            text_column, text_pair_column, image_column, audio_column, label_column (`str`, *optional*):
                Names of the columns, if not `"text"`, `"text_pair"`, `"image"`, `"audio"` and `"label"`.
            split (`str`, *optional*):
                Split of a `DatasetDict`; `"train"` when not given.
            candidate_labels (`str` or `list[str]`, *optional*):
                Names of the classes, in order, as a list or between commas. A class may be without an example, and
                there may be no examples at all.
            hints (`str`, `Callable`, `dict`, `list` or `None`, *optional*, defaults to `"auto"`):
                Label hints: `"auto"` for those that the backbone can give, `None` for none, names of them, a function
                `(inputs, label_names) -> (n, num_labels)` or array of your own, a dict of names and these, or a list.
            hypothesis_template (`str`, *optional*):
                Text around the name of a class, which replaces `{}`.
            label_descriptions (`dict[str, str]`, *optional*):
                Texts that describe classes better than their names, by name.
            unlabeled (`list`, a column or a table, *optional*):
                Inputs without labels, which calibrate the hints.
        """
        is_empty = examples is None and classes.get("candidate_labels") is None
        self.model.set_support(None if is_empty else self._encode(examples, classes, is_stored=True))

    def add_examples(self, examples: RawExamples, **classes: Any) -> None:
        r"""
        Add examples to the stored support set; only these, and the texts of new classes, are embedded.

        Answers are as if all examples had been given at once, but for the rounding of stored embeddings. With the
        protocols `vanilla` and `loo`, the prompt of all examples is written and read anew, which takes their texts.

        Args:
            examples (`list[dict]`, `dict[str, list]`, `datasets.Dataset` or a table):
                The labeled examples, of old or new classes; one will do. Classes that are sorted stay so, and new
                ones come last otherwise, unless a `ClassLabel` feature has all of them.
            classes:
                `hints` of your own, where those of a loaded task are needed, and `label_descriptions` and `unlabeled`
                for new classes, as in [`set_examples`].
        """
        lasting = self._lasting.get("hints")
        if "hints" not in classes and (callable(lasting) or isinstance(lasting, Mapping)):
            classes["hints"] = lasting
        with self.device_placement():
            self.model.add_examples(
                examples,
                self._processor,
                cache=self._open_cache(),
                batch_size=self._batch_size,
                **{**self._lasting_columns, **classes},
            )

    def remove_examples(self, examples: Any, **table: Any) -> None:
        """Remove examples from the stored support set; their classes stay.

        Args:
            examples (`int`, `dict`, `list` or a table):
                Their indices, from 0 in the order of the support set, or the examples themselves, of which all copies
                are removed. A task that version 0.1 stored, and one of images or audio, takes indices.
            table:
                `text_column` and the like, as in [`set_examples`].
        """
        with self.device_placement():
            self.model.remove_examples(examples, self._processor, **{**self._lasting_columns, **table})

    def suggest(
        self,
        inputs: Any,
        n: int = 8,
        *,
        examples: RawExamples | SupportSet | None = None,
        batch_size: int | None = None,
        progress_bar: bool = False,
        **classes: Any,
    ) -> list[dict[str, Any]]:
        r"""
        Suggest which of many inputs to label next: they are uncertain, unlike each other, and like many others.

        Args:
            inputs (`object`):
                Many inputs without labels, as in a call.
            n (`int`, *optional*, defaults to 8):
                Most inputs to suggest. Copies of each other, and of examples, are suggested once or not at all.
            batch_size (`int`, *optional*), progress_bar (`bool`, *optional*, defaults to `False`):
                As in a call.
            examples, classes:
                As in [`explain`].

        Returns:
            `list[dict]`: `{"index", "score"}`, the best first: the place of an input, from 0, and its uncertainty
            multiplied by the share of all inputs that it alone covers; see [`Pool`]. There is no chance in it.
        """
        _, is_one, items, table = self._read_inputs(inputs, classes)
        if is_one:
            raise TypeError(f"inputs is one {self.model.config.modality}; give a list of those from which to choose.")
        n, size = as_count(n, "n"), as_limit(batch_size, "batch_size") or self._batch_size
        given = take_classes(classes)
        refuse_arguments(classes)
        bar = tqdm(items, desc="suggesting", disable=not as_flag(progress_bar, "progress_bar"))
        return self._answerer(*self._find_support(examples, given, **table), {}, {}, size).suggest(bar, n)

    def embed(
        self,
        inputs: Any,
        *,
        view: str | None = None,
        batch_size: int | None = None,
        progress_bar: bool = False,
        **table: Any,
    ) -> np.ndarray:
        r"""
        Embed inputs as the task reads them; no support set is needed.

        Args:
            inputs (`object`):
                One input, or many, as in a call.
            view (`str`, *optional*):
                Name of a view in `model.config.views`, or `"all"` for all of them side by side; the first one when not
                given, which for a sentence encoder is the embedding of sentence-transformers.
            batch_size (`int`, *optional*), progress_bar (`bool`, *optional*, defaults to `False`), table:
                As in a call.

        Returns:
            `np.ndarray` of shape `(n, dim)`, or `(dim,)` for one input: float32, as `SentenceTransformer.encode`
            returns it. The layers of a view stand side by side, without the centering and scaling by a support set.
        """
        _, is_one, items, _ = self._read_inputs(inputs, table)
        refuse_arguments(table)
        batching = {"batch_size": as_limit(batch_size, "batch_size") or self._batch_size}
        batching["progress_bar"] = as_flag(progress_bar, "progress_bar")
        with self._place():
            embedder = self.model.embedder(self._open_cache(), self._preprocess_params.get("max_length"))
            found = embed_inputs(embedder, self._processor, items, view, **batching)
        return found[0] if is_one else found

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Save the task: model, support set, tokenizer or processor, and card.

        Args:
            save_directory (`str` or `Path`), kwargs:
                As in [`TartPreTrainedModel.save_pretrained`]; `push_to_hub=True` pushes the folder.
        """
        # stock pipelines need these settings; the user's processor stays as it is
        processor = copy.deepcopy(self._processor)
        if isinstance(processor, PreTrainedTokenizerBase) and processor.pad_token is None:
            processor.pad_token = processor.eos_token or processor.bos_token or processor.unk_token
        if self.model.config.modality.is_padded:
            processor.return_attention_mask = True
        check_folder(self.model, save_directory)
        with self._pushing(save_directory, kwargs), staged(save_directory, OWNED) as stage:
            self.model.save_pretrained(stage, **kwargs)
            processor.save_pretrained(stage)
            keep_edited_card(stage, Path(save_directory))

    def model_card(self) -> ModelCard:
        """Return the card of the task."""
        return self.model.model_card()


def load_model(model: Any, parts: dict[str, Any], arguments: dict[str, Any]) -> TartPreTrainedModel:
    """Return the composed model of a pipeline; add the device that a device map has chosen to its arguments."""
    given = {**{name: value for name, value in parts.items() if value is not None}, **take(arguments, COMPOSITION)}
    if isinstance(model, PipelineModel):
        return model.load(arguments, **given)
    is_composed = isinstance(model, TartPreTrainedModel)
    if name := next((each for each in given if is_composed or each == "backbone"), None):
        raise ValueError(
            f"{name} is given with a model that is loaded already; give model=<Hub id or folder of a task>, or load "
            f"the task with from_pretrained(..., {name}=...)."
        )
    if not isinstance(unwrap(model), PreTrainedModel):
        as_source(model, "model", " or a loaded PreTrainedModel")
    return model if is_composed else compose_any(model, **given)
