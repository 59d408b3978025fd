"""The layout of the page, and what its buttons do."""

import html
import json
import os
from collections.abc import Callable
from typing import Any

from transformers_tart.checks.packages import import_package
from transformers_tart.inputs.modality import Modality
from transformers_tart.loading.embedded import EMBEDDED
from transformers_tart.pipeline_tart import TartClassificationPipeline
from transformers_tart.ui.session import Session
from transformers_tart.ui.sheets import ENDINGS, Limits, Sheet, read_paste, read_sheet
from transformers_tart.ui.tables import (
    ANSWER_HEADERS,
    EXAMPLE_HEADERS,
    VOTE_HEADERS,
    answer_rows,
    example_rows,
    text_choices,
    vote_rows,
)


TITLE = "Few-shot classification"
ERRORS = (ValueError, TypeError, OSError, ImportError, FloatingPointError)
SECONDS = 20  # that a message is shown
MOST_SESSIONS = 100  # of which the oldest are forgotten
OLDEST_FILE = 3600  # seconds
TOP_CLASSES = 10
FONTS = ["system-ui", "sans-serif"]  # of the visitor's machine, so that none is fetched
COLORS = {  # of more contrast than the usual ones
    "button_primary_background_fill": "*primary_600",
    "button_primary_background_fill_dark": "*primary_600",
    "button_primary_background_fill_hover": "*primary_700",
    "button_primary_background_fill_hover_dark": "*primary_700",
    "block_info_text_color": "*neutral_600",
    "block_info_text_color_dark": "*neutral_400",
}
CSS = "footer {display: none !important}"
SAMPLE = """text,label
"You won a free prize! Call now to claim it",spam
"URGENT: confirm your bank password today",spam
"Text WIN to 80123 for cash, 1.50 per message",spam
"Cheap loans approved in minutes, reply YES",spam
"Are we still meeting at the library at six?",ham
"I left my keys on your table, sorry",ham
"Happy birthday! Have a lovely day",ham
"Can you pick up some milk on the way home?",ham
"""
SAMPLE_TEXTS = "Call now to win free cash!\nShall we walk home after dinner?"


def import_gradio() -> Any:
    """Import Gradio with its telemetry off."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when it is imported
    return import_package("gradio", "ui", "The page")


def check_modality(modality: Modality) -> None:
    """Raise a ValueError for a model that does not read texts."""
    if not modality.is_tokenized:
        raise ValueError(f"The model reads {modality.plural}, and the page is for texts; give another model.")


def serve(
    classify: TartClassificationPipeline, *, is_local: bool = False, limits: Limits | None = None, **options: Any
) -> Any:
    r"""
    Serve a page on which visitors give examples, classify texts, correct the answers and save the task.

    Args:
        classify ([`TartClassificationPipeline`]):
            A pipeline for texts. Its support set, if any, is the task with which each visitor begins.
        is_local (`bool`, *optional*, defaults to `False`):
            Whether all visitors may write to folders of this machine, and push with the token that is stored on it.
        limits ([`Limits`], *optional*):
            Largest amounts that a visitor may give.
        options:
            Options of `gradio.Blocks.launch`: `server_name`, `server_port`, `share`, `prevent_thread_lock` and so on.

    Returns:
        `gradio.Blocks`: the page, which is served when `prevent_thread_lock=True`, and was served otherwise.
    """
    check_modality(classify.model.config.modality)
    gr, limits = import_gradio(), limits or Limits()
    theme = gr.themes.Default(primary_hue="blue", font=FONTS, font_mono=FONTS, text_size="lg").set(**COLORS)
    settings = {"theme": theme, "css": CSS, "footer_links": [], "ssr_mode": False, "show_error": False}
    settings |= {"max_file_size": limits.num_bytes, "state_session_capacity": MOST_SESSIONS}
    page = Page(gr, classify, limits, is_local).build()
    page.launch(**{**settings, **options})
    return page


class Page:
    """The components of the page, and the handlers of their events."""

    def __init__(self, gr: Any, classify: TartClassificationPipeline, limits: Limits, is_local: bool):
        self.gr, self.classify, self.limits, self.is_local = gr, classify, limits, is_local

    def build(self) -> Any:
        """Build the page."""
        gr = self.gr
        page = gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(OLDEST_FILE, OLDEST_FILE))
        with page:
            self.session = gr.State()
            gr.Markdown(f"# {TITLE}\n{self._introduction()}")
            with gr.Row():
                with gr.Column():
                    self._build_examples()
                with gr.Column():
                    self._build_texts()
            self._build_answers()
            self._build_keeping()
        return page

    def _introduction(self) -> str:
        name = self.classify.model.config.base_model_name_or_path
        words = "A frozen model learns your classes from a few labeled examples, or from their names alone."
        if name in EMBEDDED:
            return f"{words} The model here is `{name}`, which is for first steps; `--model` takes a larger one."
        return words if name is None else f"{words} The model is `{name}`."

    def _on(self, button: Any, handler: Callable, inputs: list[Any], outputs: list[Any], event: str = "click") -> None:
        """Run a handler of the session when a component has an event; one handler runs at a time."""

        def run(session: Session | None, *values: Any) -> tuple:
            session = session or self._open()
            try:
                return session, *handler(session, *values)
            except ERRORS as err:
                self.gr.Warning(html.escape(to_message(err), quote=False), duration=SECONDS, title="Not done")
                return session, *(self.gr.skip() for _ in outputs)

        of_model = {"concurrency_id": "model", "concurrency_limit": 1, "api_visibility": "private"}
        getattr(button, event)(run, [self.session, *inputs], [self.session, *outputs], **of_model)

    def _open(self) -> Session:
        return Session(self.classify, self.limits, self.is_local)

    def _build_examples(self) -> None:
        gr, limits = self.gr, self.limits
        gr.Markdown("## 1. Examples")
        with gr.Tabs():
            with gr.Tab("Paste"):
                info = (
                    "A table with names of columns in its first line, as csv or from a spreadsheet, or lines of JSON."
                )
                pasted = gr.Textbox(label="Labeled examples", info=info, lines=8, max_lines=14, placeholder=SAMPLE)
                with gr.Row():
                    sample = gr.Button("Fill in a sample", size="md")
                    use_paste = gr.Button("Use these examples", size="md", variant="primary")
            with gr.Tab("Upload"):
                label = f"File of at most {limits.num_bytes / 1e6:g} MB and {limits.examples:,} examples"
                file = gr.File(label=label, file_types=list(ENDINGS), height=160)
                use_file = gr.Button("Use this file", size="md", variant="primary")
            with gr.Tab("Only labels"):
                names = gr.Textbox(
                    label="Names of the classes",
                    info="Without examples, texts are classified by these names.",
                    placeholder="complaint, question, praise",
                )
                use_names = gr.Button("Use these labels", size="md", variant="primary")
        with gr.Row(visible=False) as columns:
            chosen = [gr.Dropdown(label=f"Column of the {kind}") for kind in ("texts", "labels")]
        self.task = gr.Textbox(self._open().describe(), label="Your task", interactive=False, lines=2)
        outputs = [*chosen, columns, self.task]
        sample.click(None, None, pasted, js=f"() => {json.dumps(SAMPLE)}")
        self._on(use_paste, self._use_paste, [pasted, *chosen], outputs)
        self._on(use_file, self._use_file, [file, *chosen], outputs)
        self._on(use_names, self._use_names, [names], [columns, self.task])

    def _use_paste(self, session: Session, pasted: str, text: str | None, label: str | None) -> tuple:
        return self._use(session, read_paste(pasted or "", session.folder, session.limits), text, label)

    def _use_file(self, session: Session, path: str | None, text: str | None, label: str | None) -> tuple:
        return self._use(session, read_sheet(path, session.limits), text, label)

    def _use(self, session: Session, sheet: Sheet, text: str | None, label: str | None) -> tuple:
        """Begin a task, or ask for the columns where they have no usual names and are not chosen yet."""
        gr, guess = self.gr, sheet.guess_columns()
        is_usual, is_chosen = guess == ("text", "label"), session.columns == sheet.columns
        session.columns = sheet.columns
        pair = (text, label) if is_chosen else guess
        dropdowns = [gr.update(choices=list(sheet.columns), value=name) for name in pair]
        if not (is_usual or is_chosen):
            return *dropdowns, gr.update(visible=True), "Check the two columns, then use the examples once more."
        text, label = pair
        session.start(sheet.examples(text, label))
        return *dropdowns, gr.update(visible=not is_usual), session.describe()

    def _use_names(self, session: Session, names: str) -> tuple:
        session.start_from_labels(names or "")
        return self.gr.update(visible=False), session.describe()

    def _build_texts(self) -> None:
        gr = self.gr
        gr.Markdown("## 2. Texts")
        self.texts = gr.Textbox(
            label="Texts to classify",
            info=f"At most {self.limits.texts} at once.",
            lines=8,
            max_lines=14,
            placeholder=SAMPLE_TEXTS,
        )
        self.by_line = gr.Checkbox(True, label="Each line is a text of its own")
        self.run = gr.Button("Classify", size="md", variant="primary")

    def _build_answers(self) -> None:
        gr = self.gr
        with gr.Column(visible=False) as self.results:
            gr.Markdown("## 3. Answers")
            self.table = self._build_table(ANSWER_HEADERS, [56, 26, 18])
            self.place = gr.Dropdown(label="Look closer at", type="value", choices=[])
            with gr.Row():
                with gr.Column():
                    self.scores = gr.Label(label="Probabilities", num_top_classes=TOP_CLASSES)
                    self._build_correction()
                with gr.Column():
                    self._build_explanation()
        details = [self.scores, self.examples, self.votes, self.right]
        answers = [self.task, self.results, self.table, self.place, *details]
        self._on(self.run, self._classify, [self.texts, self.by_line], answers)
        self._on(self.place, self._show, [self.place], details, event="input")
        self._on(self.add, self._correct, [self.place, self.right], answers)
        self._on(self.undo, self._undo, [self.place], answers)

    def _build_correction(self) -> None:
        gr = self.gr
        self.right = gr.Dropdown(
            label="Right label", info="Choose one, or write a new one.", allow_custom_value=True, choices=[]
        )
        with gr.Row():
            self.undo = gr.Button("Undo the last addition", size="md")
            self.add = gr.Button("Add as an example", size="md", variant="primary")

    def _build_explanation(self) -> None:
        self.examples = self._build_table(
            EXAMPLE_HEADERS, [52, 24, 24], label="Nearest examples (positive weights count for the answer)"
        )
        self.votes = self._build_table(
            VOTE_HEADERS,
            [43, 20, 20, 17],
            label="Votes of views and label hints (a negative weight counts against it)",
        )

    def _build_table(self, headers: list[str], widths: list[int], **options: Any) -> Any:
        shares = [f"{width}%" for width in widths]
        return self.gr.Dataframe(
            headers=headers, column_widths=shares, interactive=False, wrap=True, buttons=["copy"], **options
        )

    def _classify(self, session: Session, text: str, is_by_line: bool) -> list[Any]:
        session.answer(text or "", is_by_line)
        return self._show_all(session, 0)

    def _correct(self, session: Session, place: int, label: str | None) -> list[Any]:
        session.correct(place, label)
        return self._show_all(session, place)

    def _undo(self, session: Session, place: int) -> list[Any]:
        session.undo()
        return self._show_all(session, place)

    def _show_all(self, session: Session, place: int) -> list[Any]:
        gr = self.gr
        rows = answer_rows(session.texts, session.answers)
        chooser = gr.update(choices=text_choices(session.texts), value=place)
        return [session.describe(), gr.update(visible=True), rows, chooser, *self._show(session, place)]

    def _show(self, session: Session, place: int) -> list[Any]:
        answer, explanation = session.answers[place], session.explain(place)
        scores = {str(each["label"]): each["score"] for each in answer}
        right = self.gr.update(choices=list(session.labels), value=str(answer[0]["label"]))
        rows = example_rows(explanation)
        return [scores, self.gr.update(value=rows, visible=bool(rows)), vote_rows(explanation), right]

    def _build_keeping(self) -> None:
        gr, press = self.gr, {"variant": "primary", "size": "md"}
        gr.Markdown("## Keep the task")
        self.keep_texts = gr.Checkbox(
            False,
            label="Include the texts of the examples",
            info="Otherwise it has their embeddings and digests alone.",
        )
        with gr.Tabs():
            with gr.Tab("Download"):
                make = gr.Button("Make a zip file", **press)
                archive = gr.File(label="The task", interactive=False, visible=False)
            if self.is_local:
                with gr.Tab("Folder"):
                    folder = gr.Textbox(label="Folder on this machine", placeholder="spam-task")
                    save = gr.Button("Save", **press)
            with gr.Tab("Hub"):
                repo = gr.Textbox(label="Repository", placeholder="me/tart-spam")
                kept = "The one stored on this machine is used if there is none here. " if self.is_local else ""
                token = gr.Textbox(label="Access token", info=f"{kept}It is used once.", type="password")
                private = gr.Checkbox(True, label="Private")
                push = gr.Button("Push", **press)
        self.kept = gr.Textbox(label="Where it is", interactive=False, visible=False)
        self._on(make, self._archive, [self.keep_texts], [archive])
        self._on(push, self._push, [repo, token, private, self.keep_texts], [self.kept])
        if self.is_local:
            self._on(save, self._save, [folder, self.keep_texts], [self.kept])

    def _archive(self, session: Session, keep_texts: bool) -> list[Any]:
        return [self.gr.update(value=session.archive(keep_texts), visible=True)]

    def _save(self, session: Session, folder: str, keep_texts: bool) -> list[Any]:
        return [self.gr.update(value=session.save(folder or "", keep_texts), visible=True)]

    def _push(self, session: Session, repo: str, token: str, private: bool, keep_texts: bool) -> list[Any]:
        return [self.gr.update(value=session.push(repo or "", token or "", private, keep_texts), visible=True)]


def to_message(err: BaseException) -> str:
    """Return the message of an error in a line, in the words of the page."""
    return " ".join(str(err).split()).replace("candidate_labels", "labels")
