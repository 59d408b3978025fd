"""The `tart-classification` pipeline."""

import copy
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any

import torch
from huggingface_hub import ModelCard
from tqdm.auto import tqdm
from transformers import AutoConfig, AutoTokenizer, Pipeline, PreTrainedModel, PreTrainedTokenizerBase
from transformers.pipelines.text_classification import ClassificationFunction, sigmoid, softmax

from transformers_tart.backbones import locate
from transformers_tart.configuration_tart import TartConfig
from transformers_tart.embeddings.batching import Batcher
from transformers_tart.embeddings.cache import EmbeddingCache
from transformers_tart.embeddings.pooling import input_device
from transformers_tart.examples import RawExamples, Text, parse_text
from transformers_tart.hub import HubMixin
from transformers_tart.modeling_tart import PreparedSupport, TartForSequenceClassification
from transformers_tart.streams import is_eager, iterate
from transformers_tart.support import SupportSet
from transformers_tart.tokenization import collate


# Texts are read, sorted by length and classified in windows of this many batches: what is in memory at a time.
BATCHES_PER_WINDOW = 32
USUAL_BATCH_SIZE = 32  # of the windows where no batch size is given


class TartClassificationPipeline(HubMixin, Pipeline):
    r"""
    Few-shot text classification with a frozen model.

    ```python
    >>> import transformers_tart
    >>> from transformers import pipeline

    >>> examples = [{"text": "free entry, WIN now", "label": "spam"}, {"text": "see you at eight", "label": "ham"}]
    >>> classify = pipeline("tart-classification", model="EleutherAI/pythia-160m", examples=examples)
    >>> classify("text YES to claim your prize")
    ```

    Args:
        model ([`TartForSequenceClassification`] or `PreTrainedModel`):
            A composed model, or any backbone, which is composed with the reasoner inside this package. `pipeline`
            takes their Hub ids and folders, and without any the small language model inside this package.
        tokenizer (`PreTrainedTokenizerBase`, *optional*):
            The backbone's tokenizer; loaded from the backbone's repository when not given.
        examples (`list[dict]`, `dict[str, list]` or `datasets.Dataset`, *optional*):
            The support set; the one stored with the model when not given.
        embedding_cache (`str` or `Path`, *optional*):
            Folder in which the embeddings of texts are kept from one run to the next, under keys that say nothing of
            the texts; needs `pip install "transformers-tart[cache]"`.
    """

    model: TartForSequenceClassification
    tokenizer: PreTrainedTokenizerBase  # type: ignore[assignment]

    _load_tokenizer = None  # taken from the backbone's repository where this one has none
    _load_processor = False  # type: ignore[assignment]
    _load_image_processor = False  # type: ignore[assignment]
    _load_feature_extractor = False  # type: ignore[assignment]

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
        examples: RawExamples | None = None,
        embedding_cache: str | os.PathLike | None = None,
        **kwargs: Any,
    ):
        if not isinstance(model, TartForSequenceClassification):
            model = TartForSequenceClassification.from_backbone(model)
        super().__init__(model=model, tokenizer=tokenizer or _backbone_tokenizer(model), **kwargs)
        self._cache_folder = embedding_cache
        self._cache: tuple[tuple, EmbeddingCache] | None = None
        if examples is not None:
            self.set_examples(examples)

    def _open_cache(self) -> EmbeddingCache | None:
        """The cache, made anew when the weights or the settings of the model have changed."""
        if self._cache_folder is None:
            return None
        config, weights = self.model.config, self.model.backbone.parameters()
        versions = [0 if weight.is_inference() else weight._version for weight in weights]
        state = (config.pooling, config.layers, self.model.backbone.dtype, versions)
        if self._cache is None or self._cache[0] != state:
            settings = {"pooling": config.pooling, "layers": config.layers}
            self._cache = state, EmbeddingCache(self._cache_folder, self.model.backbone, **settings)
        return self._cache[1]

    def set_examples(self, examples: RawExamples | None) -> None:
        """Replace the stored support set; `None` removes it."""
        self.model.set_support(None if examples is None else self._encode(examples))

    def _encode(
        self, examples: RawExamples, progress_bar: bool = False, max_length: int | None = None
    ) -> PreparedSupport:
        with self.device_placement():
            return self.model.prepare_examples(
                examples,
                self.tokenizer,
                batch_size=self._batch_size,
                progress_bar=progress_bar,
                keep_texts=True,
                cache=self._open_cache(),
                max_length=max_length or self._preprocess_params.get("max_length"),
            )

    def _sanitize_parameters(
        self,
        top_k: int | None | str = "",
        function_to_apply: str | ClassificationFunction | None = None,
        max_length: int | None = None,
    ) -> tuple[dict, dict, dict]:
        preprocess: dict[str, Any] = {} if max_length is None else {"max_length": max_length}
        postprocess: dict[str, Any] = {}
        if top_k is None or isinstance(top_k, int):
            if top_k is not None and top_k < 1:
                raise ValueError(f"top_k is {top_k}; it must be at least 1, or None for all classes.")
            postprocess["top_k"] = top_k
        if function_to_apply is not None:
            names = ("DEFAULT", *ClassificationFunction.__members__)
            name = getattr(function_to_apply, "name", function_to_apply)
            if not isinstance(name, str) or name.upper() not in names:
                raise ValueError(
                    f'function_to_apply is "{function_to_apply}"; it must be "default", "softmax", "sigmoid" or "none"'
                )
            postprocess["function_to_apply"] = function_to_apply
        return preprocess, {}, postprocess

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
        Classify texts.

        Args:
            inputs (`str`, `dict`, `list`, `datasets` column, generator or dataset):
                One text, one `{"text", "text_pair"}`, or many of them. A list or column gives a list; a generator or
                `KeyDataset` gives an iterator that reads as it goes.
            examples (`list[dict]`, `dict[str, list]`, `datasets.Dataset` or [`SupportSet`], *optional*):
                The support set of this call; the stored one when not given.
            top_k (`int`, *optional*):
                How many classes to return, best first, as a list; `None` for all. Without it, the best alone.
            function_to_apply (`str`, *optional*, defaults to `"default"`):
                `"default"` and `"softmax"` give probabilities, `"sigmoid"` that of the logits, `"none"` the logits.
            max_length (`int`, *optional*):
                Longest text in tokens.
            batch_size (`int`, *optional*):
                Most texts of a forward pass; as many as a budget of tokens allows when not given.
            progress_bar (`bool`, *optional*, defaults to `False`):
                Whether to show progress.
            num_workers (`int`, *optional*):
                Taken for compatibility with other pipelines; texts are tokenised in this process.

        Returns:
            `dict` or `list`: `{"label", "score"}` for each text, or a list of them with `top_k`.
        """
        preprocess, forward, postprocess = self._sanitize_parameters(**kwargs)
        if examples is None or isinstance(examples, SupportSet):
            with self.device_placement():
                support = self.model.prepare_support(examples)
        else:
            support = self._encode(examples, progress_bar, **preprocess)
        forward = {**self._forward_params, **forward, "support": support}
        preprocess = {**self._preprocess_params, **preprocess}
        postprocess = {**self._postprocess_params, **postprocess}
        if isinstance(inputs, (str, Mapping)):
            texts = [parse_text(inputs, "The input")]
            return next(self._classify(texts, Batcher.on(self._input_device), preprocess, forward, postprocess))
        if isinstance(inputs, bytes) or not isinstance(inputs, (Iterable, Sized)):
            raise TypeError(
                f"The input is {type(inputs).__name__}; give a text, a list of texts or a generator of texts."
            )
        batcher = Batcher.on(self._input_device, self._batch_size if batch_size is None else batch_size)
        items = iterate(inputs)
        if progress_bar:
            total = len(inputs) if isinstance(inputs, Sized) else None
            items = iter(tqdm(items, desc="classifying", unit="text", total=total))
        results = self._iterate(items, batcher, preprocess, forward, postprocess)
        return list(results) if is_eager(inputs) else results

    def _iterate(
        self, inputs: Iterator, batcher: Batcher, preprocess: dict, forward: dict, postprocess: dict
    ) -> Iterator[Any]:
        """Classify in batches of similar length, window by window; results come in the order of the inputs."""
        items = enumerate(inputs)
        size = (batcher.max_rows or USUAL_BATCH_SIZE) * BATCHES_PER_WINDOW
        while window := list(itertools.islice(items, size)):
            texts = [parse_text(item, f"Input {i}") for i, item in window]
            yield from self._classify(texts, batcher, preprocess, forward, postprocess)

    def _classify(
        self, texts: list[Text], batcher: Batcher, preprocess: dict, forward: dict, postprocess: dict
    ) -> Iterator[Any]:
        """Classify some texts at once."""
        max_length, support = preprocess.get("max_length"), forward["support"]
        with self.device_placement(), self.get_inference_context()():
            logits = self.model.classify_rows(
                self.model.embedder(max_length=max_length).tokenize(self.tokenizer, texts),
                support,
                pad_token_id=self.tokenizer.pad_token_id,
                batcher=batcher,
                cache=self._open_cache(),
                max_length=max_length,
            ).cpu()
        names = support.support.label_names
        return iter([self.postprocess({"logits": x[None], "label_names": names}, **postprocess) for x in logits])

    @property
    def _input_device(self) -> torch.device:
        return input_device(self.model.backbone)

    def preprocess(self, input_: Any, max_length: int | None = None) -> dict[str, Any]:
        """Tokenise one text or text pair."""
        texts = [parse_text(input_, "The input")]
        rows = self.model.embedder(max_length=max_length).tokenize(self.tokenizer, texts)
        return collate(rows, self.tokenizer.pad_token_id)

    def _forward(self, model_inputs: dict[str, Any], support: PreparedSupport) -> dict[str, Any]:
        return {
            "logits": self.model(**model_inputs, support=support).logits,
            "label_names": support.support.label_names,
        }

    def postprocess(
        self,
        model_outputs: dict[str, Any],
        top_k: Any = "",
        function_to_apply: str | ClassificationFunction = "default",
    ) -> Any:
        """Labels and scores of one text, by the conventions of the text-classification pipeline."""
        logits = model_outputs["logits"][0].float().numpy()
        function = str(getattr(function_to_apply, "value", function_to_apply)).lower()
        scores = {"sigmoid": sigmoid, "none": lambda x: x}.get(function, softmax)(logits)
        results = [
            {"label": name, "score": float(score)}
            for name, score in zip(model_outputs["label_names"], scores, strict=True)
        ]
        results.sort(key=lambda result: result["score"], reverse=True)
        return results[0] if top_k == "" else results[:top_k]

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Save the task: model, support set, tokenizer and card.

        Args:
            save_directory (`str` or `Path`):
                The folder.
            kwargs:
                As in [`TartForSequenceClassification.save_pretrained`]; `push_to_hub=True` pushes the folder.
        """
        tokenizer = self.tokenizer
        if tokenizer.pad_token is None:
            # other pipelines and collators batch by the tokenizer's pad token; the user's tokenizer stays as it is
            tokenizer = copy.deepcopy(tokenizer)
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.bos_token or tokenizer.unk_token
        with self._pushing(save_directory, kwargs):
            self.model.save_pretrained(save_directory, **kwargs)
            tokenizer.save_pretrained(save_directory)

    def model_card(self) -> ModelCard:
        """The card of the task."""
        return self.model.model_card()


class PipelineModel:
    """What `pipeline("tart-classification", model=<name>)` loads: a TART repository, or any backbone, composed."""

    @classmethod
    def from_pretrained(cls, name: str, config: Any = None, **kwargs: Any) -> TartForSequenceClassification:
        """Load by the kind of repository that `config` describes."""
        if config is None:
            config = AutoConfig.from_pretrained(name)
        if isinstance(config, TartConfig):
            return TartForSequenceClassification.from_pretrained(name, config=config, **kwargs)
        kwargs.pop("_from_pipeline", None)
        if os.path.isdir(name):
            name = os.path.abspath(name)  # transformers took the config from the folder of this name
        return TartForSequenceClassification.from_backbone(name, **kwargs)


def _backbone_tokenizer(model: TartForSequenceClassification) -> PreTrainedTokenizerBase:
    base, revision = model.config.base_model_name_or_path, model.config.base_model_revision
    if base is None:
        raise ValueError("The model names no backbone to take the tokenizer from; pass tokenizer=...")
    try:
        source, source_revision = locate(base, revision)
        return AutoTokenizer.from_pretrained(source, revision=source_revision, **model.hub_arguments)
    except (OSError, ValueError) as err:
        raise ValueError(f'No tokenizer can be loaded from the backbone "{base}"; pass tokenizer=... ({err})') from err


__all__ = ["PipelineModel", "TartClassificationPipeline"]
