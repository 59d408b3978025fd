"""The `tart-classification` pipeline."""

import copy
import itertools
import os
import sys
from collections.abc import Iterator, Sized
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard
from tqdm.auto import tqdm
from transformers import Pipeline, PreTrainedModel, PreTrainedTokenizerBase
from transformers.pipelines.text_classification import ClassificationFunction
from transformers.utils import logging

from transformers_tart.backbones.forward import input_device
from transformers_tart.checks.arguments import as_count, as_flag, check_device
from transformers_tart.embeddings.batching import Batcher
from transformers_tart.embeddings.media import MediaEmbedder
from transformers_tart.embeddings.media import collate as collate_media
from transformers_tart.files import staged
from transformers_tart.hub.push import HubMixin, keep_edited_card
from transformers_tart.inputs.containers import is_eager, iterate, unpack
from transformers_tart.inputs.examples import RawExamples
from transformers_tart.inputs.text_options import TextOptions, text_options
from transformers_tart.inputs.tokenization import collate
from transformers_tart.modeling_base import TartPreTrainedModel
from transformers_tart.origin import check_folder
from transformers_tart.pipeline_inputs import Inputs, MediaInputs, TextInputs, Unreadable
from transformers_tart.pipeline_outputs import answer, answer_options, failure
from transformers_tart.pipeline_parts import PipelineCache, choose_processor, load_model
from transformers_tart.repository import OWNED
from transformers_tart.support import PreparedSupport, SupportSet


logger = logging.get_logger(__name__)

USUAL_BATCH_SIZE = 32  # of the windows that are in memory at a time, where no batch size is given


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
            takes their Hub ids and folders, and without any the small language model inside this package.
        tokenizer (`PreTrainedTokenizerBase`, *optional*), image_processor (`BaseImageProcessor`, *optional*),
        feature_extractor (`SequenceFeatureExtractor`, *optional*), processor (`ProcessorMixin`, *optional*):
            The backbone's, of texts, of images, of audio, of other inputs; loaded from the backbone's repository when
            not given.
        examples (`list[dict]`, `dict[str, list]`, `datasets.Dataset` or a table, *optional*):
            The support set; the one stored with the model when not given. A table of pandas, polars or Arrow.
        backbone (`PreTrainedModel` or `str`, *optional*):
            A backbone, or where to load one from, to use instead of the one that the task refers to.
        embedding_cache (`str` or `Path`, *optional*):
            Folder in which embeddings are kept from one run to the next, under hashes of the inputs.
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
        **kwargs: Any,
    ):
        kwargs.pop("local_files_only", None)  # which `pipeline` has passed on, and leaves here
        check_device(kwargs.get("device"))
        if kwargs.get("batch_size") is not None:
            kwargs["batch_size"] = as_count(kwargs["batch_size"], "batch_size", ", or None")
        self._cache = PipelineCache(embedding_cache)
        model = load_model(model, backbone, kwargs)
        self._modality = model.config.modality
        given = {
            "tokenizer": tokenizer,
            "image_processor": image_processor,
            "feature_extractor": feature_extractor,
            "processor": processor,
        }
        super().__init__(model=model, **choose_processor(model, given), **kwargs)
        if examples is not None:
            self.set_examples(examples)

    @property
    def _processor(self) -> Any:
        """The tokenizer, image processor or feature extractor."""
        return getattr(self, self._modality.processor_argument)

    def _inputs(self, options: TextOptions) -> Inputs:
        embedder = self.model.embedder(max_length=options.max_length)
        if isinstance(embedder, MediaEmbedder):
            return MediaInputs(embedder, self._processor)
        return TextInputs(embedder, self._processor, options)

    def set_examples(self, examples: RawExamples | None) -> None:
        """Replace the stored support set; `None` removes it."""
        self.model.set_support(None if examples is None else self._encode(examples, is_stored=True))

    def _encode(
        self,
        examples: RawExamples,
        progress_bar: bool = False,
        max_length: int | None = None,
        is_stored: bool = False,
    ) -> PreparedSupport:
        with self.device_placement():
            return self.model.prepare_examples(
                examples,
                self._processor,
                batch_size=self._batch_size,
                progress_bar=progress_bar,
                keep_texts=self._modality.is_tokenized,
                cache=self._cache.open(self.model),
                max_length=max_length or self._preprocess_params.get("max_length"),
                is_stored=is_stored,
            )

    def _sanitize_parameters(
        self,
        top_k: int | None | str = "",
        function_to_apply: str | ClassificationFunction | None = None,
        **text_arguments: Any,
    ) -> tuple[dict, dict, dict]:
        return text_options(text_arguments, self._modality), {}, answer_options(top_k, function_to_apply)

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
                One text, or `{"text", "text_pair"}`; one image or piece of audio as [`read_image`] or [`read_audio`]
                takes it: a path, an address, the bytes of a file, a PIL image, an array, or what `datasets` makes of
                them; or many of them. A list, a column, or a table with a column of that name gives a list; a
                generator or `KeyDataset` gives an iterator that reads as it goes.
            examples (`list[dict]`, `dict[str, list]`, `datasets.Dataset`, a table or [`SupportSet`], *optional*):
                The support set of this call; the stored one when not given.
            top_k (`int`, *optional*):
                How many classes to return, best first, as a list; `None` for all. Without it, the best alone.
            function_to_apply (`str`, *optional*, defaults to `"default"`):
                `"default"` and `"softmax"` give probabilities, `"sigmoid"` that of the logits, `"none"` the logits.
            max_length (`int`, *optional*):
                Longest text in tokens.
            truncation (`bool` or `str`, *optional*, defaults to `True`):
                Whether longer texts are cut; with `False` they are an error. Other arguments that the
                text-classification pipeline passes to its tokenizer, such as `padding`, are taken where they change
                no answer.
            batch_size (`int`, *optional*):
                Most inputs of a forward pass; as many as a budget of tokens allows when not given.
            progress_bar (`bool`, *optional*, defaults to `False`):
                Whether to show progress.
            num_workers (`int`, *optional*):
                Taken for compatibility with other pipelines; inputs are read in this process.

        Returns:
            `dict` or `list`: `{"label", "score"}` for each input, or a list of them with `top_k`. Of many images or
            pieces of audio, one that cannot be read gives `{"label": None, "score": nan, "error": why}`.

        Raises:
            ValueError, TypeError, OSError: When a text is not a string, a single image or piece of audio cannot be
                read, or an argument is unknown.
            BackboneMismatchError: When the backbone is no longer the one that embedded the support set.
        """
        preprocess, forward, postprocess = self._sanitize_parameters(**kwargs)
        progress_bar = as_flag(progress_bar, "progress_bar")
        batch_size = None if batch_size is None else as_count(batch_size, "batch_size", ", or None")
        inputs = unpack(inputs, self._modality)
        if examples is None or isinstance(examples, SupportSet):
            with self.device_placement():
                support = self.model.prepare_support(examples)
        else:
            support = self._encode(examples, progress_bar, preprocess.get("max_length"))
        forward = {**self._forward_params, **forward, "support": support}
        preprocess = {**self._preprocess_params, **preprocess}
        postprocess = {**self._postprocess_params, **postprocess}
        reader = self._inputs(TextOptions(**preprocess))
        if reader.is_one(inputs):
            batcher = Batcher.on(self._input_device)
            row = reader.rows([("The input", inputs)])[0]
            if isinstance(row, Unreadable):
                raise row.error
            return next(self._classify([row], batcher, preprocess, forward, postprocess))
        batcher = Batcher.on(self._input_device, self._batch_size if batch_size is None else batch_size)
        items = iterate(inputs)
        if progress_bar:
            total = len(inputs) if isinstance(inputs, Sized) else None
            items = iter(tqdm(items, desc="classifying", unit=reader.name, total=total))
        results = self._iterate(items, reader, batcher, preprocess, forward, postprocess)
        return list(results) if is_eager(inputs) else results

    def _iterate(
        self,
        inputs: Iterator,
        reader: Inputs,
        batcher: Batcher,
        preprocess: dict,
        forward: dict,
        postprocess: dict,
    ) -> Iterator[Any]:
        """Classify in batches of similar length, window by window; results come in the order of the inputs."""
        items = enumerate(inputs)
        size = min(sys.maxsize, (batcher.max_rows or USUAL_BATCH_SIZE) * reader.batches_per_window)
        while window := list(itertools.islice(items, size)):
            rows = reader.rows([(f"Input {i}", item) for i, item in window])
            yield from self._classify(rows, batcher, preprocess, forward, postprocess)

    def _classify(
        self, rows: list[Any], batcher: Batcher, preprocess: dict, forward: dict, postprocess: dict
    ) -> Iterator[Any]:
        """Classify some rows at once."""
        readable = [row for row in rows if not isinstance(row, Unreadable)]
        if len(readable) < len(rows):
            logger.error(
                f"{len(rows) - len(readable)} of {len(rows)} inputs cannot be read; their results say why, under "
                '"error".'
            )
        support, logits = forward["support"], iter(())
        if readable:
            with self.device_placement(), self.get_inference_context()():
                found = self.model.classify_rows(
                    readable,
                    support,
                    pad_token_id=getattr(self.tokenizer, "pad_token_id", None),
                    batcher=batcher,
                    cache=self._cache.open(self.model),
                    max_length=preprocess.get("max_length"),
                )
            logits = iter(found.cpu())
        names = self.model.names_for(support.support)
        for row in rows:
            if isinstance(row, Unreadable):
                yield failure(row.error, as_list="top_k" in postprocess)
            else:
                yield self.postprocess({"logits": next(logits)[None], "label_names": names}, **postprocess)

    @property
    def _input_device(self) -> torch.device:
        return input_device(self.model.backbone)

    def preprocess(self, input_: Any, **options: Any) -> dict[str, Any]:
        """Make a batch of one input."""
        row = self._inputs(TextOptions(**options)).rows([("The input", input_)])[0]
        if isinstance(row, Unreadable):
            raise row.error
        if self._modality.is_tokenized:
            return collate([row], self.tokenizer.pad_token_id)
        return collate_media([row])

    def _forward(self, model_inputs: dict[str, Any], support: PreparedSupport) -> dict[str, Any]:
        return {
            "logits": self.model(**model_inputs, support=support).logits,
            "label_names": self.model.names_for(support.support),
        }

    def postprocess(
        self,
        model_outputs: dict[str, Any],
        top_k: Any = "",
        function_to_apply: str | ClassificationFunction = "default",
    ) -> Any:
        """Labels and scores of one input, by the conventions of the text-classification pipeline."""
        logits = model_outputs["logits"][0].float().numpy()
        return answer(logits, model_outputs["label_names"], top_k, function_to_apply)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Save the task: model, support set, tokenizer or processor, and card.

        Args:
            save_directory (`str` or `Path`):
                The folder.
            kwargs:
                As in [`TartPreTrainedModel.save_pretrained`]; `push_to_hub=True` pushes the folder.
        """
        # what stock pipelines need; the user's processor stays as it is
        processor = copy.deepcopy(self._processor)
        if isinstance(processor, PreTrainedTokenizerBase) and processor.pad_token is None:
            processor.pad_token = processor.eos_token or processor.bos_token or processor.unk_token
        if self._modality.is_padded:
            processor.return_attention_mask = True  # by which padding is left out
        check_folder(self.model, save_directory)
        with self._pushing(save_directory, kwargs), staged(save_directory, OWNED) as stage:
            self.model.save_pretrained(stage, **kwargs)
            processor.save_pretrained(stage)
            keep_edited_card(stage, Path(save_directory))

    def model_card(self) -> ModelCard:
        """The card of the task."""
        return self.model.model_card()


__all__ = ["TartClassificationPipeline"]
