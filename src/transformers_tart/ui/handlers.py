"""The handlers of the events of the page: from values of its components to updates of others."""

import html
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from transformers_tart.errors import SHOWN
from transformers_tart.pipeline_tart import TartClassificationPipeline
from transformers_tart.ui.session import Session
from transformers_tart.ui.sheets import Limits, Sheet, read_paste, read_sheet


LONGEST_TEXT = 300  # characters in a table
LONGEST_CHOICE = 60
BRACES = str.maketrans({"{": "&#123;", "}": "&#125;", "$": "&#36;"})  # Gradio fills them in
NUMBER = ' class="tart-number"'
SECONDS = 20  # that a message is shown


def answers_table(texts: Sequence[str], answers: Sequence[Sequence[dict[str, Any]]]) -> str:
    """Return a table of text, best label and its score."""
    best = [answer[0] for answer in answers]
    rows = ((cut(text), found["label"], f"{found['score']:.0%}") for text, found in zip(texts, best, strict=True))
    return _table("", ("Text", "Label", "Score"), rows)


def explanation_tables(explanation: dict[str, Any]) -> str:
    """Return a table of the examples that count most, if any, and one of the votes of views and hints."""
    examples = [
        (cut(each.get("text", f"Example {each['index']}")), each["label"], f"{each['weight']:+.2f}")
        for each in explanation["examples"]
    ]
    votes = [
        (f"{kind} {each['name']}", f"{each['label']} ({each['score']:.0%})", f"{each['weight']:+.2f}")
        for kind in ("view", "hint")
        for each in explanation[f"{kind}s"]
    ]
    caption = "Nearest examples. A positive weight counts for the answer, a negative one against it."
    shown = _table(caption, ("Example", "Label", "Weight"), examples) if examples else ""
    caption = "Votes of views and label hints. A negative weight counts against the vote."
    return shown + _table(caption, ("Source", "Vote", "Weight"), votes)


def _table(caption: str, headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table whose last column holds numbers."""

    def line(tag: str, cells: Sequence[Any]) -> str:
        marks = [""] * (len(cells) - 1) + [NUMBER]
        written = (f"<{tag}{mark}>{_escape(cell)}</{tag}>" for cell, mark in zip(cells, marks, strict=True))
        return f"<tr>{''.join(written)}</tr>"

    above = f"<caption>{caption}</caption>" if caption else ""
    head = f"{above}<thead>{line('th', headers)}</thead>"
    return f'<table class="tart-table">{head}<tbody>{"".join(line("td", row) for row in rows)}</tbody></table>'


def _escape(value: Any) -> str:
    return html.escape(str(value)).translate(BRACES)


def text_choices(texts: Sequence[str]) -> list[tuple[str, int]]:
    """Return a short name for each text, and its place."""
    return [(f"{i + 1}. {cut(text, LONGEST_CHOICE)}", i) for i, text in enumerate(texts)]


def cut(text: Any, longest: int = LONGEST_TEXT) -> str:
    """Return a text, or pair of texts, without what follows its longest part that is shown."""
    whole = text if isinstance(text, str) else " / ".join(text)
    return whole if len(whole) <= longest else f"{whole[:longest]}…"


class Handlers:
    """Handlers that take the session of a visitor first; `gr` is Gradio, and the others are as in [`Session`]."""

    def __init__(self, gr: Any, classify: TartClassificationPipeline, limits: Limits, is_local: bool):
        self.gr, self.classify, self.limits, self.is_local = gr, classify, limits, is_local

    def open(self) -> Session:
        """Return a new session."""
        return Session(self.classify, self.limits, self.is_local)

    def guard(self, handler: Callable, num_outputs: int) -> Callable:
        """Return a handler that opens a session where there is none, and shows errors as messages."""

        def run(session: Session | None, *values: Any) -> tuple:
            session = session or self.open()
            try:
                return session, *handler(session, *values)
            except SHOWN as err:
                message = " ".join(str(err).split()).replace("candidate_labels", "labels")
                self.gr.Warning(html.escape(message, quote=False), duration=SECONDS, title="Not done")
                return session, *[self.gr.skip()] * num_outputs

        return run

    def use_paste(self, session: Session, pasted: str, text: str | None, label: str | None) -> tuple:
        """Begin a task of pasted examples."""
        return self._use(session, read_paste(pasted or "", session.folder, session.limits), text, label)

    def use_file(self, session: Session, path: str | None, text: str | None, label: str | None) -> tuple:
        """Begin a task of the examples in a file."""
        return self._use(session, read_sheet(path, session.limits), text, label)

    def _use(self, session: Session, sheet: Sheet, text: str | None, label: str | None) -> tuple:
        """Begin a task, or ask for the columns where they have no usual names and are not chosen yet."""
        update, guess = self.gr.update, sheet.guess_columns()
        is_usual, is_chosen = guess == ("text", "label"), session.columns == sheet.columns
        text, label = (text, label) if is_chosen else guess
        chosen = [update(choices=list(sheet.columns), value=name) for name in (text, label)]
        if not (is_usual or is_chosen):
            session.columns = sheet.columns
            asked = "Check the columns of texts and labels above, then press the button once more."
            return *chosen, update(visible=True), asked, update()
        session.start(sheet.examples(text, label))
        session.columns = sheet.columns  # last: after an error the page still shows those of the table before
        return *chosen, update(visible=not is_usual), session.describe(), update(visible=False)

    def use_names(self, session: Session, names: str) -> tuple:
        """Begin a task of names of classes."""
        session.start_from_labels(names or "")
        return self.gr.update(visible=False), session.describe(), self.gr.update(visible=False)

    def run(self, session: Session, text: str, is_by_line: bool) -> tuple:
        """Classify texts."""
        session.answer(text or "", is_by_line)
        return self._show_all(session, 0)

    def correct(self, session: Session, place: int, label: str | None) -> tuple:
        """Add a text with its right label to the examples."""
        session.correct(place, label)
        return self._show_all(session, place)

    def undo(self, session: Session, place: int) -> tuple:
        """Remove the example that was added last."""
        session.undo()
        return self._show_all(session, place)

    def _show_all(self, session: Session, place: int) -> tuple:
        chooser = self.gr.update(choices=text_choices(session.texts), value=place)
        table = answers_table(session.texts, session.answers)
        return session.describe(), self.gr.update(visible=True), table, chooser, *self.show(session, place)

    def show(self, session: Session, place: int) -> tuple:
        """Show the probabilities of a text and their explanation."""
        explanation, answer = session.explain(place), session.answers[place]
        scores = {str(each["label"]): each["score"] for each in answer}
        right = self.gr.update(choices=list(session.labels), value=str(answer[0]["label"]))
        return scores, explanation_tables(explanation), right

    def archive(self, session: Session, keep_texts: bool) -> tuple:
        """Make a file of the task."""
        return (self.gr.update(value=session.archive(keep_texts), visible=True),)

    def save(self, session: Session, folder: str, keep_texts: bool) -> tuple:
        """Save the task to a folder."""
        return (self.gr.update(value=session.save(folder or "", keep_texts), visible=True),)

    def push(self, session: Session, repo: str, token: str, private: bool, keep_texts: bool) -> tuple:
        """Push the task to the Hub."""
        return (self.gr.update(value=session.push(repo or "", token or "", private, keep_texts), visible=True),)
