"""Methods by name: the composed model, probes, SetFit, and those without a language model.

A new method is a function and a line in `METHODS`.
"""

import random
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers.utils import cached_file

from transformers_tart.backbones.reference import BackboneReference
from transformers_tart.checks.packages import import_package
from transformers_tart.configuration_tart import PROTOCOLS
from transformers_tart.evaluation.methods.base import Method, Support, TaskContext, seeded
from transformers_tart.evaluation.methods.baselines import BASELINES, fill_classes
from transformers_tart.evaluation.methods.fine_tuning import fine_tune
from transformers_tart.evaluation.methods.models import Models
from transformers_tart.evaluation.prompting import ANSWER, QUESTION, SEPARATOR, prompt_log_probs
from transformers_tart.hints import readable
from transformers_tart.inputs.texts import Text
from transformers_tart.training.validation import Predictor


# Queries without content (contextual calibration, arXiv 2102.09690, section 5).
CONTENT_FREE = ("N/A", "[MASK]", "")
ORDERS = 2  # of the examples: that of the support set, and permutations by its seed
# Settings on which records of both methods depend.
PROMPTS = {"template": QUESTION + ANSWER + SEPARATOR, "labels": "words", "orders": ORDERS}
MODULES_FILE = "modules.json"  # of every repository of sentence-transformers
ZERO_SHOT = "zero_shot"


def prompting(context: TaskContext, support: Support) -> Tensor:
    """Return probabilities in proportion to the mean likelihood of the tokens of each label."""
    return _log_probs(context, support)[:, : -len(CONTENT_FREE)].exp().mean(0)


def calibrated_prompting(context: TaskContext, support: Support) -> Tensor:
    """Divide the probabilities of prompting by those of queries without content (arXiv 2102.09690)."""
    log_probs = _log_probs(context, support)
    empty = log_probs[:, -len(CONTENT_FREE) :].exp().mean(1, keepdim=True)
    return (log_probs[:, : -len(CONTENT_FREE)] - empty.log()).softmax(-1).mean(0)


def _log_probs(context: TaskContext, support: Support) -> Tensor:
    """Return log-probabilities (orders, n, classes) of the labels after the test texts and queries without content."""
    return context.read_prompts("prompting", support, partial(_read, context, support))


def _read(context: TaskContext, support: Support) -> Tensor:
    texts, queries, models = context.texts(support), [*context.test_texts, *CONTENT_FREE], context.models
    if any(not isinstance(text, str) for text in (*texts, *queries)):
        raise ValueError(f"{context.task.name} has text pairs, for which there is no prompt.")
    labels, names = context.labels(support).tolist(), write_labels(context.task.label_names)
    limits: dict[str, Any] = {"max_length": models.max_length, "max_prompt": models.max_prompt}
    found = []
    for order in draw_orders(len(texts), support.seed):
        given: tuple = ([texts[i] for i in order], [labels[i] for i in order], queries, names)
        result = prompt_log_probs(
            models.language_model, models.tokenizer, *given, batch_size=models.batch_size, **limits
        )
        found.append(result.log_probs.double().log_softmax(-1))
    return torch.stack(found)


def write_labels(names: tuple[str, ...]) -> list[str]:
    """Return the labels of classes in a prompt: names as words where these have a meaning and are distinct."""
    words = [readable(name) or name for name in names]
    return words if len(set(words)) == len(words) else list(names)


def draw_orders(count: int, seed: int) -> list[list[int]]:
    """Return the orders in which examples are shown: one where there are fewer than two."""
    generator = random.Random(seed)
    orders = [list(range(count))]
    while count > 1 and len(orders) < ORDERS:
        orders.append(generator.sample(range(count), count))
    return orders


def tart(protocol: str | None = None, hints: str | None = "auto") -> Method:
    """Return the composed model as a method, with its own protocol or another, with label hints or without."""

    def predict(context: TaskContext, support: Support) -> Tensor:
        embedded = context.embed(support, protocol, hints)
        prepared = embedded.model.prepare_embedded(embedded.support, embedded.reading)
        with torch.inference_mode():
            return embedded.model.answer(embedded.queries, prepared).double().softmax(-1).cpu()

    return predict


def zero_shot(context: TaskContext, support: Support) -> Tensor:
    """Return the probabilities of the composed model by the names of the classes alone."""
    return tart()(context, Support((), support.seed))


def probe(baseline: Predictor) -> Method:
    """Return a classifier on the embeddings that the composed model reads as a method."""

    def predict(context: TaskContext, support: Support) -> Tensor:
        embedded = context.embed(support)
        known, queries = embedded.features()
        return baseline(known, embedded.support.labels, queries, context.task.num_classes)

    return predict


def majority(context: TaskContext, support: Support) -> Tensor:
    """Return the shares of the classes in the support set, with one example added to each class."""
    counts = torch.bincount(context.labels(support), minlength=context.task.num_classes).double() + 1
    return (counts / counts.sum()).expand(len(context.task.test_texts), -1).clone()


def tfidf(context: TaskContext, support: Support) -> Tensor:
    """Fit logistic regression on TF-IDF weights of words and pairs of neighboring words.

    A class without an example has probability 0. Examples without any word give the class shares.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    vectorizer = TfidfVectorizer(ngram_range=(1, 2))
    known, words = join_pairs(context.texts(support)), vectorizer.build_analyzer()
    if not any(words(text) for text in known):
        return majority(context, support)
    classifier = LogisticRegression(max_iter=2000)
    classifier.fit(vectorizer.fit_transform(known), context.labels(support).numpy())
    found = classifier.predict_proba(vectorizer.transform(join_pairs(context.test_texts)))
    return fill_classes(found, classifier.classes_, context.task.num_classes)


def join_pairs(texts: Sequence[Text]) -> list[str]:
    """Return texts in which both texts of a pair stand one after the other."""
    return [text if isinstance(text, str) else "\n".join(text) for text in texts]


def setfit(context: TaskContext, support: Support) -> Tensor:
    """Train SetFit by its library, with the training arguments of its own, on a sentence encoder loaded anew.

    A class without an example has probability 0.
    """
    import_package("setfit", "setfit", "The method setfit")
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from setfit import SetFitModel, Trainer, TrainingArguments
    from sklearn.linear_model import LogisticRegression

    models = context.models
    reference = _find_sentence_encoder(models)
    columns = {"text": join_pairs(context.texts(support)), "label": context.labels(support).tolist()}
    with tempfile.TemporaryDirectory() as folder, seeded(support.seed):
        encoder = SentenceTransformer(
            reference.path,
            revision=reference.place.get("revision"),
            device=str(models.device),
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True, "dtype": "float32"},  # trained in that, however it is stored
        )
        if models.max_length is not None:
            encoder.max_seq_length = min(models.max_length, encoder.max_seq_length or models.max_length)
        # composed here, since SetFitModel.from_pretrained would unpickle a head that lies beside the encoder
        model = SetFitModel(model_body=encoder, model_head=LogisticRegression(max_iter=2000))
        quiet = {"save_strategy": "no", "report_to": "none", "show_progress_bar": False}
        arguments = TrainingArguments(folder, seed=support.seed, **quiet)
        Trainer(model=model, args=arguments, train_dataset=Dataset.from_dict(columns)).train()
        found = model.predict_proba(join_pairs(context.test_texts), as_numpy=True, show_progress_bar=False)
    return fill_classes(found, model.model_head.classes_, context.task.num_classes)


def _find_sentence_encoder(models: Models) -> BackboneReference:
    """Return the reference to the backbone, checked to be a repository of sentence-transformers."""
    reference = replace(models.backbone_reference, subfolder=None)  # the folder of a module
    try:
        cached_file(reference.path, MODULES_FILE, **reference.place)
    except OSError as err:
        raise ValueError(
            f"SetFit fine-tunes models of sentence-transformers, and {models.title} is none: {MODULES_FILE} cannot be "
            "loaded. Give one, such as sentence-transformers/paraphrase-mpnet-base-v2, or leave this method out."
        ) from err
    return reference


PROMPTING: dict[str, Method] = {"prompting": prompting, "prompting_calibrated": calibrated_prompting}
METHODS: dict[str, Method] = {
    "tart": tart(),
    "tart_without_hints": tart(hints=None),
    ZERO_SHOT: zero_shot,
    **{f"tart_{protocol}": tart(protocol) for protocol in PROTOCOLS if protocol != "stream"},
    **PROMPTING,
    **{name: probe(baseline) for name, baseline in BASELINES.items()},
    "fine_tune": fine_tune("full"),
    "fine_tune_head": fine_tune("head"),
    "fine_tune_last": fine_tune("last"),
    "lora": fine_tune("lora"),
    "setfit": setfit,
    "tfidf": tfidf,
    "majority": majority,
}
# Methods that answer without examples.
WITHOUT_EXAMPLES = ("tart", ZERO_SHOT, *PROMPTING)
