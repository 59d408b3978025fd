"""Methods without a language model: class shares and bags of words."""

from collections.abc import Sequence

import torch
from torch import Tensor

from transformers_tart.evaluation.methods.base import Support, TaskContext
from transformers_tart.evaluation.methods.baselines import fill_classes
from transformers_tart.inputs.texts import Text


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
