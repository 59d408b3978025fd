"""The task of one visitor of the page, and the words in which it is shown; no Gradio."""

import copy
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers_tart.inputs.candidates import parse_candidates
from transformers_tart.inputs.columns import LABEL
from transformers_tart.inputs.modality import TEXT
from transformers_tart.pipeline_tart import TartClassificationPipeline
from transformers_tart.ui.sheets import Limits, Row


ARCHIVE = "tart-task"
SHOWN_CLASSES = 10  # in a summary


@dataclass
class Session:
    """The task of one visitor, on a backbone that all visitors share.

    Attributes:
        classify: pipeline with the support set of this visitor.
        limits: largest amounts.
        is_local: whether the visitor is the user of this machine, its folders and its Hub token.
        texts: texts that were classified last.
        answers: their answers, all classes of each, the best first.
        added: number of examples that were added.
        columns: columns of the table that was read last.
    """

    classify: TartClassificationPipeline
    limits: Limits = field(default_factory=Limits)
    is_local: bool = False
    texts: list[str] = field(default_factory=list)
    answers: list[list[dict[str, Any]]] = field(default_factory=list)
    added: int = 0
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.classify = copy.copy(self.classify)
        self.classify.model = self.classify.model.copy_task()
        self._folder = tempfile.TemporaryDirectory(prefix="tart-page-")  # removed with the session

    @property
    def folder(self) -> Path:
        """Folder of the files of this session."""
        return Path(self._folder.name)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, in order; none without a task."""
        support = self.classify.model.support
        return () if support is None else self.classify.model.names_for(support)

    def start(self, examples: Sequence[Row]) -> None:
        """Begin a task of labeled examples."""
        self.limits.check_count(len({str(row[LABEL]) for row in examples}), "classes")
        self._begin(examples)

    def start_from_labels(self, labels: str) -> None:
        """Begin a task without examples, given the names of the classes between commas or in lines."""
        names = [name.strip() for name in labels.replace("\n", ",").split(",") if name.strip()]
        if len(names) < 2:
            raise ValueError('Give the names of two classes or more, with commas between, such as "spam, ham".')
        self.limits.check_count(len(names), "classes")
        self._begin(None, candidate_labels=parse_candidates(names))

    def _begin(self, examples: Sequence[Row] | None, **classes: Any) -> None:
        self.classify.set_examples(examples, **classes)
        self.texts, self.answers, self.added = [], [], 0

    def answer(self, text: str, is_by_line: bool = True) -> list[list[dict[str, Any]]]:
        """Classify a text, or each line of one; return all classes of each text, the best first."""
        self._check_started()
        self.limits.check_size(len(text.encode("utf-8", "replace")))
        texts = [line.strip() for line in (text.splitlines() if is_by_line else [text]) if line.strip()]
        if not texts:
            raise ValueError("There is no text yet: write or paste one first.")
        self.limits.check_count(len(texts), "texts")
        self.answers, self.texts = self.classify(texts, top_k=None), texts
        return self.answers

    def explain(self, place: int) -> dict[str, Any]:
        """Explain the answer for one of the texts that were classified last."""
        return self.classify.explain(self._text(place))

    def _text(self, place: int | None) -> str:
        if place is None or not 0 <= place < len(self.texts):
            raise ValueError("There are no answers yet: classify texts first.")
        return self.texts[place]

    def correct(self, place: int, label: str | None) -> None:
        """Add one of the texts that were classified last to the examples, and classify all of them again."""
        text, name = self._text(place), (label or "").strip()
        if not name:
            raise ValueError("Choose the right label first, or write a new one.")
        support = self.classify.model.support
        present = 0 if support is None else len(support)
        self.limits.check_count(present + 1, "examples")
        self.limits.check_count(len({*self.labels, name}), "classes")
        self.classify.add_examples([{TEXT: text, LABEL: name}])
        self.added += 1
        self.answers = self.classify(self.texts, top_k=None)

    def undo(self) -> None:
        """Remove the example that was added last, and classify the texts again."""
        if not self.added:
            raise ValueError("No example was added yet.")
        self.classify.remove_examples(len(self.classify.model.support or ()) - 1)
        self.added -= 1
        self.answers = self.classify(self.texts, top_k=None)

    def save(self, folder: str, include_texts: bool = False) -> str:
        """Save the task to a folder of this machine, and return its path."""
        self._check_started()
        if not self.is_local:
            raise ValueError("This page is public, so it saves to no folder of its machine; download the task.")
        if not folder.strip():
            raise ValueError("Write the name of a folder first.")
        path = Path(folder.strip()).expanduser().absolute()
        self.classify.save_pretrained(path, include_texts=include_texts and self._has_texts)
        return str(path)

    def archive(self, include_texts: bool = False) -> str:
        """Save the task to a zip file in the folder of this session, and return its path."""
        self._check_started()
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            self.classify.save_pretrained(folder, include_texts=include_texts and self._has_texts)
            return shutil.make_archive(str(self.folder / ARCHIVE), "zip", folder)

    def push(self, repo_id: str, token: str, private: bool, include_texts: bool = False) -> str:
        """Push the task to the Hub, and return the address of the repository."""
        self._check_started()
        if not repo_id.strip():
            raise ValueError("Write the name of the repository first, such as me/tart-spam.")
        if not token.strip() and not self.is_local:
            raise ValueError("Give an access token of yours with write permission; it is used once and not kept.")
        kept = include_texts and self._has_texts
        hub = {"token": token.strip() or None, "private": private}
        return str(self.classify.push_to_hub(repo_id.strip(), include_texts=kept, **hub).repo_url)

    @property
    def _has_texts(self) -> bool:
        support = self.classify.model.support
        return support is not None and support.texts is not None and len(support) > 0

    def _check_started(self) -> None:
        if not self.labels:
            raise ValueError("There is no task yet: give examples or labels first.")

    def describe(self) -> str:
        """Return a summary of the task in words."""
        support = self.classify.model.support
        if support is None:
            return "No task yet: give examples or labels above."
        counts = [int((support.labels == i).sum()) for i in range(len(self.labels))]
        pairs = zip(self.labels, counts, strict=True)
        shown = [f"{name} ({count})" if any(counts) else name for name, count in pairs]
        more = f" and {len(shown) - SHOWN_CLASSES} more" if len(shown) > SHOWN_CLASSES else ""
        subject = f"{sum(counts):,} example{'s' * (sum(counts) > 1)} of" if any(counts) else "No examples,"
        is_waiting = any(counts) and not support.has_two_classes
        waits = " What was added counts as soon as two classes have an example." if is_waiting else ""
        return f"{subject} {len(shown)} classes: {', '.join(shown[:SHOWN_CLASSES])}{more}.{waits}"
