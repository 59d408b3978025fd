"""The calls of the `tart-classification` pipeline: classification and explanation of inputs."""

from collections.abc import Iterator, Mapping, MutableMapping, Sequence, Sized
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

from tqdm.auto import tqdm
from transformers import Pipeline, PreTrainedTokenizerBase

from transformers_tart.answers.answering import Answerer
from transformers_tart.answers.explanation import warn_about_hints
from transformers_tart.answers.formats import choose_format
from transformers_tart.answers.limits import OPTIONS, Calibration, limit_options
from transformers_tart.backbones.digest import state_token
from transformers_tart.backbones.forward import input_device
from transformers_tart.checks.arguments import as_count, as_flag
from transformers_tart.embeddings.arguments import as_limit
from transformers_tart.embeddings.batching import Batcher
from transformers_tart.embeddings.cache import EmbeddingCache
from transformers_tart.hints.given import as_scores, parse_given
from transformers_tart.inputs.columns import TableOptions, take_table_arguments
from transformers_tart.inputs.containers import columns_of, is_eager, iterate, pick, unpack
from transformers_tart.inputs.examples import RawExamples
from transformers_tart.inputs.labels import restore_labels
from transformers_tart.inputs.text_options import TextOptions, answer_options, refuse_arguments, text_options
from transformers_tart.modeling_base import TartPreTrainedModel
from transformers_tart.support import PreparedSupport, SupportSet


# Arguments that describe the classes of a support set, or of candidate labels in place of one.
CLASSES = ("candidate_labels", "hints", "hypothesis_template", "label_descriptions", "unlabeled")
LASTING = ("hints", "hypothesis_template")  # which later examples take over from the construction


def take_classes(arguments: MutableMapping[str, Any]) -> dict[str, Any]:
    """Remove the arguments `CLASSES`; return those that are given, where `hints=None` stands for no hints."""
    given = {name: arguments.pop(name) for name in CLASSES if name in arguments}
    return {name: value for name, value in given.items() if value is not None or name == "hints"}


class AnsweringPipeline(Pipeline):
    """The part of [`TartClassificationPipeline`] that answers calls, given its model and processor."""

    model: TartPreTrainedModel
    tokenizer: PreTrainedTokenizerBase  # type: ignore[assignment]

    _cache_folder: str | None = None
    _cache: tuple[tuple, EmbeddingCache] | None = None
    _calibration: Calibration | None = None  # of the support set of the latest call
    _lasting: Mapping[str, Any] = MappingProxyType({})  # arguments `LASTING` of the construction

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_cache": None, "_calibration": None}  # the first is an open database

    @property
    def _processor(self) -> Any:
        """The tokenizer, image processor or feature extractor."""
        return getattr(self, self.model.config.modality.processor_argument)

    def _encode(
        self,
        examples: RawExamples | None,
        classes: Mapping[str, Any] = MappingProxyType({}),
        max_length: int | None = None,
        **options: Any,
    ) -> PreparedSupport:
        with self.device_placement():
            prepared = self.model.prepare_examples(
                examples,
                self._processor,
                batch_size=self._batch_size,
                keep_texts=self.model.config.modality.is_tokenized,
                cache=self._open_cache(),
                max_length=max_length or self._preprocess_params.get("max_length"),
                **{**self._lasting, **classes, **options},
            )
        warn_about_hints(prepared)
        return prepared

    def _find_support(
        self, examples: RawExamples | SupportSet | None, classes: Mapping[str, Any], **options: Any
    ) -> tuple[PreparedSupport, dict[str, Any]]:
        """Return the support set of a call, given, stored or without examples, and the user's hints of the inputs."""
        is_stored = examples is None and classes.get("candidate_labels") is None
        if not is_stored and not isinstance(examples, SupportSet):
            return self._encode(examples, classes, **options), {}
        given = parse_given(None if isinstance(classes.get("hints"), str) else classes.get("hints"))
        if in_vain := sorted(classes.keys() - ({"hints"} if given else set())):
            raise ValueError(
                f"{in_vain} need examples or candidate_labels in the same call, and no SupportSet; give these too, or "
                "call set_examples."
            )
        with self.device_placement():
            support = self.model.prepare_support(examples if isinstance(examples, SupportSet) else None)
        known = () if support.support.hints is None else support.support.hints.given
        if unknown := sorted(given.keys() - set(known)):
            raise ValueError(f"The support set was given the hints {list(known)}, without {unknown}; leave them out.")
        return support, {name: hint if callable(hint) else as_scores(name, hint) for name, hint in given.items()}

    def _open_cache(self) -> EmbeddingCache | None:
        """Return the embedding cache, opened anew when the weights of the model have changed."""
        if self._cache_folder is None:
            return None
        state = state_token(self.model.backbone)
        if self._cache is None or self._cache[0] != state:
            self._cache = state, EmbeddingCache(self._cache_folder, self.model.backbone)
        return self._cache[1]

    def _sanitize_parameters(
        self, top_k: Any = "", function_to_apply: Any = None, multi_label: Any = None, **text_arguments: Any
    ) -> tuple[dict, dict, dict]:
        given = {name: text_arguments.pop(name) for name in OPTIONS if name in text_arguments}
        postprocess = {**answer_options(top_k, function_to_apply), **limit_options(given)}
        if multi_label is not None:
            postprocess["multi_label"] = as_flag(multi_label, "multi_label")
        return text_options(text_arguments, self.model.config.modality), {}, postprocess

    def __call__(
        self,
        inputs: Any,
        candidate_labels: str | Sequence[str] | None = None,
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
                a table, or the `Path` of one gives a list; a generator, `KeyDataset` or stream gives an iterator that
                reads in windows. Other columns of tables and keys of rows are ignored.
            candidate_labels (`str` or `list[str]`, *optional*):
                Classes of this call, without examples or, in this order, of `examples`.
            examples (`list[dict]`, `dict[str, list]`, a table, a dataset, a path or [`SupportSet`], *optional*):
                The support set of this call, as in [`set_examples`]; the stored one when not given.
            text_column, text_pair_column, image_column, audio_column, label_column (`str`, *optional*):
                Columns of the tables and rows in `inputs` and `examples`; those of the construction when not given.
            split (`str`, *optional*):
                Split of `inputs`, of a `DatasetDict`.
            hints, hypothesis_template, label_descriptions, unlabeled (*optional*):
                As in [`set_examples`], for the examples or candidate labels of this call. Without these, `hints` holds
                the scores of the inputs (n, num_labels), or functions, by the names of the hints that you gave with
                the stored examples.
            multi_label (`bool`, *optional*, defaults to `False`):
                Without examples: whether each label is scored on its own, as a single one always is.
            top_k (`int`, *optional*):
                Number of classes to return, best first, as a list; `None` for all. Without it, the best alone.
            function_to_apply (`str`, *optional*, defaults to `"default"`):
                `"default"` gives probabilities, of lists of labels the sigmoid; `"none"` gives logits.
            abstain_below (`float`, *optional*):
                Probability of the best label, below which the label is `None`, beside the same score.
            out_of_scope (`bool`, *optional*, defaults to `False`), reject_above (`float`, *optional*):
                Whether each answer holds `"out_of_scope"`, the share of the examples that are closer to the others
                than the input is to all of them, from 0 to 1; and the share above which the label is `None`.
            coverage (`float`, *optional*):
                Give the labels that cannot be excluded, as a list: of inputs like the examples, it holds the true
                label in about this share. It takes `coverage / (1 - coverage)` examples, 9 for 0.9, and time at first.
            max_length (`int`, *optional*), truncation (`bool` or `str`, *optional*, defaults to `True`):
                Longest text in tokens, and whether longer texts are truncated; with `False` they are an error. Other
                arguments for the tokenizer, such as `padding`, are accepted where they change no prediction.
            batch_size (`int`, *optional*):
                Most inputs of a forward pass; as many as a budget of tokens allows when not given.
            progress_bar (`bool`, *optional*, defaults to `False`), num_workers (`int`, *optional*):
                Whether to show progress. The second is unused, since inputs are read in this process.

        Returns:
            `dict` or `list`: `{"label", "score"}` for each input, or a list of them with `top_k` or `coverage`, which
            holds the label `None` alone where there is no answer; without examples and `top_k`,
            `{"sequence", "labels", "scores"}` with the labels sorted. Of many images or recordings, an
            unreadable one gives `{"label": None, "score": nan, "error": <the reason>}`.

        Raises:
            ValueError, TypeError, OSError: When a text or a single input cannot be read, or an argument is invalid.
            BackboneMismatchError: When the backbone is no longer the one that embedded the support set.
        """
        classes = take_classes(kwargs)
        if candidate_labels is not None:
            classes["candidate_labels"] = candidate_labels
        rows, is_one, items, table = self._read_inputs(inputs, kwargs)
        preprocess, _, postprocess = self._sanitize_parameters(**kwargs)
        progress_bar, batch_size = as_flag(progress_bar, "progress_bar"), as_limit(batch_size, "batch_size")
        max_length, size = preprocess.get("max_length"), None if is_one else batch_size or self._batch_size
        found = self._find_support(examples, classes, max_length=max_length, progress_bar=progress_bar, **table)
        answerer = self._answerer(*found, preprocess, postprocess, size)
        if is_one:
            return answerer.answer_one(next(items))
        bar = {"desc": "classifying", "unit": self.model.config.modality, "disable": not progress_bar}
        results = answerer.answer_many(tqdm(items, total=len(rows) if isinstance(rows, Sized) else None, **bar))
        return list(results) if is_eager(rows) else results

    def explain(
        self, inputs: Any, *, examples: RawExamples | SupportSet | None = None, num_examples: int = 5, **classes: Any
    ) -> Any:
        r"""
        Explain predictions: how much views, hints and examples count, and for which label.

        Args:
            inputs (`object`):
                One input, or a list of them, as in a call.
            examples (`list[dict]`, `dict[str, list]`, a table, a dataset, a path or [`SupportSet`], *optional*):
                The support set; the stored one when not given.
            num_examples (`int`, *optional*, defaults to 5):
                Most examples to list.
            classes:
                `candidate_labels`, `hints` and so on, as in [`set_examples`]; and `text_column` and the like, as in a
                call.

        Returns:
            `dict` or `list[dict]`: for each input `label` and `score` of the prediction; `views` and `hints`, each
            `{"name", "weight", "label", "score"}` with the label that it favors, and its probability by this part
            alone; and `examples`, those of most influence first, each `{"index", "label", "weight"}` and the `"text"`
            where it is kept. A positive weight is in favor of the prediction. Values are those of JSON.
        """
        _, is_one, items, table = self._read_inputs(inputs, classes)
        num_examples, given = as_count(num_examples, "num_examples"), take_classes(classes)
        refuse_arguments(classes)
        answerer = self._answerer(*self._find_support(examples, given, **table), {}, {}, None)
        found = answerer.explain(list(items), num_examples)
        return found[0] if is_one else found

    def _read_inputs(
        self, inputs: Any, arguments: MutableMapping[str, Any]
    ) -> tuple[Any, bool, Iterator[Any], dict[str, Any]]:
        """Return the inputs inside a table, whether they are one, their values, and the table of the examples."""
        table, modality = {**self._lasting_columns, **take_table_arguments(arguments)}, self.model.config.modality
        options = TableOptions.of(table, modality.columns)
        rows = unpack(inputs, modality, options)
        columns = columns_of(modality, options if rows is inputs else TableOptions())  # tables give the usual keys
        table.pop("split", None)  # that of the inputs
        is_one = modality.is_one(rows)
        places = [("The input", rows)] if is_one else ((f"Input {i}", row) for i, row in enumerate(iterate(rows)))
        return rows, is_one, (pick(row, modality, columns, where) for where, row in places), table

    @property
    def _lasting_columns(self) -> dict[str, Any]:
        return take_table_arguments(dict(self._lasting))

    def _answerer(
        self, support: PreparedSupport, hints: dict, preprocess: dict, postprocess: dict, batch_size: int | None
    ) -> Answerer:
        """Return what answers a call, given its options."""
        written = {**self._postprocess_params, **postprocess}
        asked = {name: written.pop(name) for name in OPTIONS if name in written}
        with self._place():
            limits = self._calibrate(support).limits(asked, has_top_k=not isinstance(written.get("top_k", ""), str))
        labels, has_lists = self._labels_of(support), support.support.is_multi_label
        form = choose_format(labels, len(support.support), has_lists=has_lists, limits=limits, **written)
        options = TextOptions(**{**self._preprocess_params, **preprocess})
        batcher, places = Batcher.on(input_device(self.model.backbone), batch_size), (self._open_cache, self._place)
        return Answerer(self.model, self._processor, support, form, options, batcher, hints, *places)

    def _calibrate(self, support: PreparedSupport) -> Calibration:
        """Return the measurements of a support set for limits, which are kept until there is another."""
        known = self._calibration
        if known is None or known.prepared is not support:
            known = self._calibration = Calibration(self.model, support)
        return known

    @contextmanager
    def _place(self) -> Iterator[None]:
        """Run a block on the device of the pipeline, without gradients."""
        with self.device_placement(), self.get_inference_context()():
            yield

    def preprocess(self, input_: Any, **options: Any) -> dict[str, Any]:
        """Make a batch of one input."""
        text = TextOptions(**options)
        embedder = self.model.embedder(max_length=text.max_length)
        return embedder.collate(self._processor, embedder.read_one(self._processor, input_, text))

    def _forward(self, model_inputs: dict[str, Any], support: PreparedSupport) -> dict[str, Any]:
        logits = self.model(**model_inputs, support=support).logits
        return {"logits": logits, "label_names": self._labels_of(support), "has_lists": support.support.is_multi_label}

    def _labels_of(self, prepared: PreparedSupport) -> Any:
        """Return the labels of the classes, as they were given."""
        return restore_labels(self.model.names_for(prepared.support), prepared.support.label_kind)

    def postprocess(self, model_outputs: dict[str, Any], top_k: Any = "", function_to_apply: Any = "default") -> Any:
        """Return labels and scores of one input, by the conventions of the text-classification pipeline."""
        function = str(getattr(function_to_apply, "value", function_to_apply)).lower()
        form = choose_format(model_outputs["label_names"], 1, top_k, function, has_lists=model_outputs["has_lists"])
        return form.write(None, model_outputs["logits"][0])
