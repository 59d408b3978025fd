"""The `tart-classification` pipeline."""

import copy
import itertools
import os
import sys
from collections.abc import Callable, Iterator, Sequence, Sized
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import ModelCard
from tqdm.auto import tqdm
from transformers import Pipeline, PreTrainedModel, PreTrainedTokenizerBase
from transformers.pipelines.text_classification import sigmoid, softmax
from transformers.utils import logging

from transformers_tart.backbones.adapters import unwrap
from transformers_tart.backbones.digest import state_token
from transformers_tart.backbones.forward import input_device
from transformers_tart.backbones.reference import choose_processor
from transformers_tart.checks.arguments import as_flag, as_source, check_device
from transformers_tart.embeddings.arguments import as_limit
from transformers_tart.embeddings.batching import Batcher
from transformers_tart.embeddings.cache import EmbeddingCache
from transformers_tart.embeddings.text import Unreadable
from transformers_tart.files import staged
from transformers_tart.hub.push import HubMixin, keep_edited_card
from transformers_tart.inputs.containers import is_eager, iterate, unpack
from transformers_tart.inputs.examples import RawExamples
from transformers_tart.inputs.text_options import TextOptions, answer_options, text_options
from transformers_tart.inputs.views import COMPOSITION, View
from transformers_tart.loading.download import take
from transformers_tart.modeling_base import TartPreTrainedModel
from transformers_tart.modeling_tart import PipelineModel, compose_any
from transformers_tart.origin import check_folder
from transformers_tart.repository import OWNED
from transformers_tart.support import PreparedSupport, SupportSet


logger = logging.get_logger(__name__)

FUNCTIONS: dict[str, Callable] = {"default": softmax, "softmax": softmax, "sigmoid": sigmoid, "none": np.asarray}
DEFAULT_BATCH_SIZE = 32  # of the windows of inputs in memory, without a batch size


class TartClassificationPipeline(HubMixin, Pipeline):
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
        examples (`list[dict]`, `dict[str, list]`, `datasets.Dataset` or a table, *optional*):
            The support set; the one stored with the model when not given. A table of pandas, polars or Arrow.
        backbone (`PreTrainedModel` or `str`, *optional*), views (`str`, [`View`] or `list`, *optional*):
            A backbone in place of the one that the task refers to, and views in place of those of a task without
            examples, or of the default, as in [`TartPreTrainedModel.from_backbone`].
        embedding_cache (`str` or `Path`, *optional*):
            Folder in which embeddings are kept from one run to the next, under hashes of the inputs.
        prompt (`str`), prompt_name (`str`), ..., *optional*:
            Other options of a backbone that is not composed yet, as in [`TartPreTrainedModel.from_backbone`].
    """

    model: TartPreTrainedModel
    tokenizer: PreTrainedTokenizerBase  # type: ignore[assignment]

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
        kwargs.pop("local_files_only", None)  # `pipeline` has used it already
        check_device(kwargs.get("device"))
        kwargs["batch_size"] = as_limit(kwargs.get("batch_size"), "batch_size")
        self._cache_folder = None if embedding_cache is None else as_source(embedding_cache, "embedding_cache")
        self._cache: tuple[tuple, EmbeddingCache] | None = None
        model = load_model(model, {"backbone": backbone, "views": views}, kwargs)
        given = {"tokenizer": tokenizer, "image_processor": image_processor, "feature_extractor": feature_extractor}
        super().__init__(model=model, **choose_processor(model, {**given, "processor": processor}), **kwargs)
        if examples is not None:
            self.set_examples(examples)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_cache": None}  # an open database

    @property
    def _processor(self) -> Any:
        """The tokenizer, image processor or feature extractor."""
        return getattr(self, self.model.config.modality.processor_argument)

    def set_examples(self, examples: RawExamples | None) -> None:
        """Replace the stored support set; `None` removes it."""
        self.model.set_support(None if examples is None else self._encode(examples, is_stored=True))

    def _encode(self, examples: RawExamples, max_length: int | None = None, **options: bool) -> PreparedSupport:
        with self.device_placement():
            return self.model.prepare_examples(
                examples,
                self._processor,
                batch_size=self._batch_size,
                keep_texts=self.model.config.modality.is_tokenized,
                cache=self._open_cache(),
                max_length=max_length or self._preprocess_params.get("max_length"),
                **options,
            )

    def _open_cache(self) -> EmbeddingCache | None:
        """Return the embedding cache, opened anew when the weights of the model have changed."""
        if self._cache_folder is None:
            return None
        state = state_token(self.model.backbone)
        if self._cache is None or self._cache[0] != state:
            self._cache = state, EmbeddingCache(self._cache_folder, self.model.backbone)
        return self._cache[1]

    def _sanitize_parameters(
        self, top_k: Any = "", function_to_apply: Any = None, **text_arguments: Any
    ) -> tuple[dict, dict, dict]:
        postprocess = answer_options(top_k, function_to_apply)
        return text_options(text_arguments, self.model.config.modality), {}, postprocess

    def __call__(
        self,
        inputs: Any,
        *,
        examples: RawExamples | SupportSet | None = None,
        batch_size: int | None = None,
        progress_bar: bool = False,
        num_workers: int | None = None,
        **kwargs: Any,
    ) -> Any:
        r"""
        Classify texts, images or audio.

        Args:
            inputs (`object`):
                One text, or `{"text", "text_pair"}`; one image or recording as [`read_image`] or [`read_audio`] takes
                it, such as a path, a PIL image, an array, or a value of `datasets`; or many of them. A list, a column,
                or a table gives a list; a generator or `KeyDataset` gives an iterator that reads in windows.
            examples (`list[dict]`, `dict[str, list]`, `datasets.Dataset`, a table or [`SupportSet`], *optional*):
                The support set of this call; the stored one when not given.
            top_k (`int`, *optional*):
                Number of classes to return, best first, as a list; `None` for all. Without it, the best alone.
            function_to_apply (`str`, *optional*, defaults to `"default"`):
                `"default"` and `"softmax"` give probabilities, `"sigmoid"` the sigmoid of each logit, `"none"` logits.
            max_length (`int`, *optional*), truncation (`bool` or `str`, *optional*, defaults to `True`):
                Longest text in tokens, and whether longer texts are truncated; with `False` they are an error. Other
                arguments for the tokenizer, such as `padding`, are accepted where they change no prediction.
            batch_size (`int`, *optional*):
                Most inputs of a forward pass; as many as a budget of tokens allows when not given.
            progress_bar (`bool`, *optional*, defaults to `False`), num_workers (`int`, *optional*):
                Whether to show progress. The second is unused, since inputs are read in this process.

        Returns:
            `dict` or `list`: `{"label", "score"}` for each input, or a list of them with `top_k`. Of many images or
            recordings, an unreadable one gives `{"label": None, "score": nan, "error": <the reason>}`.

        Raises:
            ValueError, TypeError, OSError: When a text or a single input cannot be read, or an argument is invalid.
            BackboneMismatchError: When the backbone is no longer the one that embedded the support set.
        """
        preprocess, _, postprocess = self._sanitize_parameters(**kwargs)
        progress_bar, batch_size = as_flag(progress_bar, "progress_bar"), as_limit(batch_size, "batch_size")
        modality = self.model.config.modality
        inputs = unpack(inputs, modality)
        if examples is None or isinstance(examples, SupportSet):
            with self.device_placement():
                support = self.model.prepare_support(examples)
        else:
            support = self._encode(examples, preprocess.get("max_length"), progress_bar=progress_bar)
        options = TextOptions(**{**self._preprocess_params, **preprocess})
        embedder = self.model.embedder(max_length=options.max_length)
        is_one = modality.is_one(inputs)
        batcher = Batcher.on(input_device(self.model.backbone), None if is_one else batch_size or self._batch_size)
        postprocess = {**self._postprocess_params, **postprocess}
        classify = partial(self._classify, support, batcher, options.max_length, postprocess)
        if is_one:
            return next(classify(embedder.read_one(self._processor, inputs, options)))
        total = len(inputs) if isinstance(inputs, Sized) else None
        items = tqdm(iterate(inputs), desc="classifying", unit=modality, total=total, disable=not progress_bar)
        places = ((f"Input {i}", item) for i, item in enumerate(items))
        size = min(sys.maxsize, (batcher.max_rows or DEFAULT_BATCH_SIZE) * embedder.batches_per_window)
        windows = iter(lambda: list(itertools.islice(places, size)), [])
        results = itertools.chain.from_iterable(classify(embedder.read(self._processor, w, options)) for w in windows)
        return list(results) if is_eager(inputs) else results

    def _classify(
        self, support: PreparedSupport, batcher: Batcher, max_length: int | None, postprocess: dict, rows: list[Any]
    ) -> Iterator[Any]:
        """Classify a window of rows in batches of similar length; unreadable ones give their error."""
        readable = [row for row in rows if not isinstance(row, Unreadable)]
        if lost := len(rows) - len(readable):
            logger.error(f'{lost} of {len(rows)} inputs cannot be read; their results hold the reason under "error".')
        logits = iter(())
        if readable:
            padding = getattr(self.tokenizer, "pad_token_id", None)
            with self.device_placement(), self.get_inference_context()():
                embedder = self.model.embedder(self._open_cache(), max_length)
                found = embedder.embed_rows(readable, support.reading, pad_token_id=padding, batcher=batcher)
                logits = iter(self.model.answer(found, support).cpu())
        names = self.model.names_for(support.support)
        for row in rows:
            if isinstance(row, Unreadable):
                result = {"label": None, "score": float("nan"), "error": str(row.error)}
                yield [result] if "top_k" in postprocess else result
            else:
                yield self.postprocess({"logits": next(logits)[None], "label_names": names}, **postprocess)

    def preprocess(self, input_: Any, **options: Any) -> dict[str, Any]:
        """Make a batch of one input."""
        text = TextOptions(**options)
        embedder = self.model.embedder(max_length=text.max_length)
        return embedder.collate(self._processor, embedder.read_one(self._processor, input_, text))

    def _forward(self, model_inputs: dict[str, Any], support: PreparedSupport) -> dict[str, Any]:
        logits = self.model(**model_inputs, support=support).logits
        return {"logits": logits, "label_names": self.model.names_for(support.support)}

    def postprocess(self, model_outputs: dict[str, Any], top_k: Any = "", function_to_apply: Any = "default") -> Any:
        """Return labels and scores of one input, by the conventions of the text-classification pipeline."""
        logits = model_outputs["logits"][0].float().numpy()
        scores = FUNCTIONS[str(getattr(function_to_apply, "value", function_to_apply)).lower()](logits)
        ranked = sorted(zip(model_outputs["label_names"], map(float, scores), strict=True), key=lambda x: -x[1])
        results = [{"label": name, "score": score} for name, score in ranked]
        return results[0] if isinstance(top_k, str) else results[:top_k]

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
