"""The layout of the page, and what its buttons do."""

import json
import os
from collections.abc import Callable
from typing import Any

from transformers_tart.checks.packages import import_package
from transformers_tart.inputs.modality import Modality
from transformers_tart.loading.embedded import EMBEDDED
from transformers_tart.pipeline_tart import TartClassificationPipeline
from transformers_tart.ui.handlers import Handlers
from transformers_tart.ui.sheets import ENDINGS, Limits


TITLE = "Few-shot classification"
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
CSS = """
footer {display: none !important}
.tart-table {width: 100%; margin-bottom: 1em; border-collapse: collapse; font-size: var(--text-sm)}
.tart-table caption {padding: .5em 0; text-align: left; color: var(--block-info-text-color)}
.tart-table th, .tart-table td {padding: .4em; border: 1px solid var(--border-color-primary); text-align: left}
.tart-table th, .tart-table td {min-width: 4.5em; overflow-wrap: anywhere; vertical-align: top}
.tart-table .tart-number {min-width: 4em; text-align: right; white-space: nowrap}
"""
PRIMARY = {"variant": "primary", "size": "md"}
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
SAMPLE_LABELS = "complaint, question, praise"
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
    page = Page(gr, Handlers(gr, classify, limits, is_local)).build()
    page.launch(**{**settings, **options})
    return page


class Page:
    """The components of the page."""

    def __init__(self, gr: Any, handlers: Handlers):
        self.gr, self.handlers = gr, handlers
        self.limits, self.is_local = handlers.limits, handlers.is_local

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
            self._connect()
        return page

    def _introduction(self) -> str:
        name = self.handlers.classify.model.config.base_model_name_or_path
        words = "A frozen model learns your classes from a few labeled examples, or from their names alone."
        if name in EMBEDDED:
            return f"{words} The model here is `{name}`, which is for first steps; `--model` takes a larger one."
        return words if name is None else f"{words} The model is `{name}`."

    def _build_examples(self) -> None:
        gr, limits = self.gr, self.limits
        gr.Markdown("## 1. Examples")
        with gr.Tabs():
            with gr.Tab("Paste"):
                info = "Csv, cells of a spreadsheet, or lines of JSON. Names of columns stand in the first line."
                self.pasted = gr.Textbox(
                    label="Labeled examples", info=info, lines=8, max_lines=14, placeholder=SAMPLE
                )
                with gr.Row():
                    sample = gr.Button("Fill in a sample", size="md")
                    self.use_paste = gr.Button("Use these examples", **PRIMARY)
            with gr.Tab("Upload"):
                label = f"At most {limits.num_bytes / 1e6:g} MB and {limits.examples:,} examples"
                self.file = gr.File(label=label, file_types=list(ENDINGS), height=160)
                self.use_file = gr.Button("Use this file", **PRIMARY)
            with gr.Tab("Only labels"):
                info = "Without examples, texts are classified by these names. Write commas between them."
                self.names = gr.Textbox(label="Names of the classes", info=info, placeholder=SAMPLE_LABELS)
                self.use_names = gr.Button("Use these labels", **PRIMARY)
        with gr.Row(visible=False) as self.columns:
            self.chosen = [gr.Dropdown(label=f"Column of the {kind}") for kind in ("texts", "labels")]
        self.task = gr.Textbox(self.handlers.open().describe(), label="Your task", interactive=False, lines=2)
        sample.click(None, None, self.pasted, js=f"() => {json.dumps(SAMPLE)}")

    def _build_texts(self) -> None:
        gr = self.gr
        gr.Markdown("## 2. Texts")
        info = f"At most {self.limits.texts} at once."
        self.texts = gr.Textbox(label="Texts to classify", info=info, lines=8, max_lines=14, placeholder=SAMPLE_TEXTS)
        self.by_line = gr.Checkbox(True, label="Each line is a text of its own")
        self.run = gr.Button("Classify", **PRIMARY)

    def _build_answers(self) -> None:
        gr, info = self.gr, "Choose one, or write a new one."
        with gr.Column(visible=False) as self.results:
            gr.Markdown("## 3. Answers")
            self.table = gr.HTML(padding=False)
            self.place = gr.Dropdown(label="Look closer at", choices=[])
            with gr.Row():
                with gr.Column():
                    self.scores = gr.Label(label="Probabilities", num_top_classes=TOP_CLASSES)
                    self.right = gr.Dropdown(label="Right label", info=info, allow_custom_value=True, choices=[])
                    with gr.Row():
                        self.undo = gr.Button("Undo the last addition", size="md")
                        self.add = gr.Button("Add as an example", **PRIMARY)
                with gr.Column():
                    self.reasons = gr.HTML(padding=False)

    def _build_keeping(self) -> None:
        gr = self.gr
        gr.Markdown("## Keep the task")
        info = "Otherwise it has their embeddings and digests alone."
        self.keep_texts = gr.Checkbox(False, label="Include the texts of the examples", info=info)
        with gr.Tabs():
            with gr.Tab("Download"):
                self.make = gr.Button("Make a zip file", **PRIMARY)
                self.archive = gr.File(label="The task", interactive=False, visible=False)
            with gr.Tab("Folder", visible=self.is_local):
                self.folder = gr.Textbox(label="Folder on this machine", placeholder="spam-task")
                self.save = gr.Button("Save", **PRIMARY)
            with gr.Tab("Hub"):
                self.repo = gr.Textbox(label="Repository", placeholder="me/tart-spam")
                kept = "The one stored on this machine is used if there is none here. " if self.is_local else ""
                self.token = gr.Textbox(label="Access token", info=f"{kept}It is used once.", type="password")
                self.private = gr.Checkbox(True, label="Private")
                self.push = gr.Button("Push", **PRIMARY)
        self.kept = gr.Textbox(label="Where it is", interactive=False, visible=False)

    def _connect(self) -> None:
        """Connect the components with the handlers."""
        do = self.handlers
        begun = [self.columns, self.task, self.results]
        self._on(self.use_paste.click, do.use_paste, [self.pasted, *self.chosen], [*self.chosen, *begun])
        self._on(self.use_file.click, do.use_file, [self.file, *self.chosen], [*self.chosen, *begun])
        self._on(self.use_names.click, do.use_names, [self.names], begun)
        details = [self.scores, self.reasons, self.right]
        answers = [self.task, self.results, self.table, self.place, *details]
        self._on(self.run.click, do.run, [self.texts, self.by_line], answers)
        self._on(self.place.input, do.show, [self.place], details)
        self._on(self.add.click, do.correct, [self.place, self.right], answers)
        self._on(self.undo.click, do.undo, [self.place], answers)
        self._on(self.make.click, do.archive, [self.keep_texts], [self.archive])
        self._on(self.save.click, do.save, [self.folder, self.keep_texts], [self.kept])
        self._on(self.push.click, do.push, [self.repo, self.token, self.private, self.keep_texts], [self.kept])

    def _on(self, event: Callable, handler: Callable, inputs: list[Any], outputs: list[Any]) -> None:
        """Run a handler at an event, one of all visitors at a time."""
        of_model = {"concurrency_id": "model", "concurrency_limit": 1, "api_visibility": "private"}
        guarded = self.handlers.guard(handler, len(outputs))
        event(guarded, [self.session, *inputs], [self.session, *outputs], **of_model)
