"""The task of a visitor of the page: tables that are read, answers, corrections and saving; without Gradio."""

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.builders import make_examples, make_pipeline
from helpers.hub_fixtures import base_tokenizer, hub  # noqa: F401
from helpers.hub_models import BASE, compose
from helpers.hub_server import TOKEN, HubServer
from transformers import PreTrainedTokenizerFast, pipeline

from transformers_tart import TartClassificationPipeline
from transformers_tart.inputs.tables import Row
from transformers_tart.ui.handlers import Handlers, answers_table, explanation_tables, text_choices
from transformers_tart.ui.session import Session
from transformers_tart.ui.sheets import Limits, Sheet, read_paste, read_sheet


LIMITS = Limits(num_bytes=500, examples=20, classes=4, texts=3)
ODD = "id,stars,what they said\n1,good,I love this pan\n2,bad,It broke at once\n3,good,Great value\n"


@pytest.fixture(scope="module")
def classify() -> TartClassificationPipeline:
    """A pipeline without a task."""
    fitted = make_pipeline()
    fitted.set_examples(None)
    return fitted


@pytest.fixture
def session(classify: TartClassificationPipeline) -> Session:
    """A session of a task of 12 examples."""
    session = Session(classify, LIMITS, is_local=True)
    session.start(make_examples())
    return session


def test__import__package__without_gradio() -> None:
    code = "import sys, transformers_tart.cli, transformers_tart.ui; assert 'gradio' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "pasted",
    ["text,label\na,x\nb,y", "label\ttext\nx\ta\ny\tb\n", '{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}']
    + ['\n[{"text": "a", "label": "x"},\n {"text": "b", "label": "y"}]'],
)
def test__paste__each_format__examples(pasted: str, tmp_path: Path) -> None:
    sheet = read_paste(pasted, tmp_path, LIMITS)
    assert sheet.guess_columns() == ("text", "label")
    assert sheet.examples("text", "label") == [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]
    assert not list(tmp_path.iterdir())


def test__paste__odd_columns__guessed_and_chosen(tmp_path: Path) -> None:
    sheet = read_paste(ODD, tmp_path, LIMITS)
    assert sheet.guess_columns() == ("what they said", "stars")
    assert sheet.examples("what they said", "stars")[0] == {"text": "I love this pan", "label": "good"}


@pytest.mark.parametrize(
    ("pasted", "message"),
    [
        (" \n", "no examples yet"),
        ("text\na\nb", "with commas or tabs"),
        ("text,label", "no rows"),
        ("win a prize,spam\nsee you,ham\nfree cash,spam", "add one"),
        ('text,label\n"a,x\nb,y', "^The row that begins in line 2 of pasted.csv is not csv"),
        ("text,label\n" + "a,x\n" * 21, "more examples than 20"),
        ("text,label\n" + "a" * 500 + ",x", "at most 0.0005 MB"),
    ],
)
def test__paste__bad__message(pasted: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_paste(pasted, tmp_path, LIMITS)


def test__file__none_or_other_ending__message(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").touch()
    with pytest.raises(ValueError, match=r"\.parquet; give \.csv"):
        read_sheet(tmp_path / "a.parquet", LIMITS)
    with pytest.raises(ValueError, match="upload one first"):
        read_sheet(None, LIMITS)


@pytest.mark.parametrize(("columns", "message"), [((None, "a"), "Choose"), (("a", "a"), "both"), (("a", "c"), "'c'")])
def test__columns__badly_chosen__message(columns: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sheet(("a", "b"), [{"a": "1", "b": "2"}]).examples(*columns)


def test__paste__corrected_after_an_error__columns_guessed_again(session: Session) -> None:
    gradio = SimpleNamespace(update=lambda **changes: changes)
    page = Handlers(gradio, session.classify, LIMITS, is_local=True)
    with pytest.raises(ValueError, match="one label"):
        page.use_paste(session, "text,label\na,x", None, None)
    *columns, _, summary, _ = page.use_paste(session, "text,label\nw1 w2,x\nw3,y", None, None)
    assert [each["value"] for each in columns] == ["text", "label"]
    assert summary == "2 examples of 2 classes: x (1), y (1)."


def test__sessions__two_visitors__tasks_of_their_own(classify: TartClassificationPipeline, session: Session) -> None:
    other = Session(classify, LIMITS)
    assert other.describe().startswith("No task yet")
    other.start_from_labels("money, family")
    assert session.labels == ("ham", "spam")
    assert other.describe() == "No examples, 2 classes: money, family."
    assert classify.model.support is None
    assert other.classify.model.backbone is session.classify.model.backbone is classify.model.backbone


def test__session__stored_task__the_one_to_begin_with() -> None:
    stored = make_pipeline()
    session = Session(stored)
    session.answer("w1 w2")
    session.correct(0, "new")
    assert session.labels == ("ham", "new", "spam")
    assert stored.model.config.id2label == {0: "ham", 1: "spam"}
    assert len(stored.model.support) == 12


def test__answers__lines__those_of_the_pipeline(session: Session) -> None:
    found = session.answer("w1 w2\n\n w3 ")
    assert session.texts == ["w1 w2", "w3"]
    expected = session.classify(["w1 w2", "w3"], top_k=None)
    assert found == expected
    assert len(session.answer("w1\nw2", is_by_line=False)) == 1


def test__corrections__added_and_undone__counted(session: Session) -> None:
    before = session.answer("w1 w2")
    session.correct(0, " odd ")
    assert session.answers[0][0]["label"] == "odd"
    assert session.describe() == "13 examples of 3 classes: ham (6), odd (1), spam (6)."
    session.undo()
    assert session.describe() == "12 examples of 3 classes: ham (6), odd (0), spam (6)."
    assert session.answers[0] != before[0]  # the class stays
    with pytest.raises(ValueError, match="No example was added"):
        session.undo()


def test__corrections__labels_alone__count_with_the_second_class(classify: TartClassificationPipeline) -> None:
    session = Session(classify, LIMITS)
    session.start_from_labels("ham\nspam")
    before = session.answer("w1 w2\nw3")
    session.correct(0, "ham")
    assert session.answers == before
    assert session.describe() == (
        "1 example of 2 classes: ham (1), spam (0). What was added counts as soon as two classes have an example."
    )
    session.correct(1, "odd")
    assert session.describe() == "2 examples of 3 classes: ham (1), odd (1), spam (0)."
    session.undo()
    session.undo()
    assert session.describe() == "No examples, 3 classes: ham, odd, spam."
    assert {each["label"] for each in session.answers[0]} == {"ham", "spam", "odd"}


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda session: session.answer(" \n"), "no text yet"),
        (lambda session: session.answer("a\nb\nc\nd"), "more texts than 3"),
        (lambda session: session.answer("a" * 501), "at most 0.0005 MB"),
        (lambda session: session.explain(0), "classify texts first"),
        (lambda session: session.correct(None, "ham"), "classify texts first"),
        (lambda session: session.start_from_labels("one"), "two classes or more"),
        (lambda session: session.start_from_labels("a,b,c,d,e"), "more classes than 4"),
        (lambda session: session.start(make_examples(12, tuple("abcde"))), "more classes than 4"),
        (lambda session: session.save(" "), "name of a folder"),
        (lambda session: session.push("", "", True), "name of the repository"),
    ],
)
def test__session__wrong_use__message_and_the_task_stays(session: Session, act: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        act(session)
    assert session.describe() == "12 examples of 2 classes: ham (6), spam (6)."


def test__session__no_task__message(classify: TartClassificationPipeline) -> None:
    session = Session(classify)
    for act in (session.archive, lambda: session.answer("a")):
        with pytest.raises(ValueError, match="no task yet"):
            act()


def test__public_page__folder_or_stored_token__refused(classify: TartClassificationPipeline, tmp_path: Path) -> None:
    session = Session(classify)
    session.start(make_examples())
    with pytest.raises(ValueError, match="public"):
        session.save(str(tmp_path / "task"))
    with pytest.raises(ValueError, match="access token"):
        session.push("me/task", " ", private=True)
    assert not list(tmp_path.iterdir())


def same_answers(first: list[Row], second: list[Row]) -> bool:
    """Return whether two answers have the same labels and scores."""
    return [each["label"] for each in first] == [each["label"] for each in second] and [
        each["score"] for each in first
    ] == pytest.approx([each["score"] for each in second], abs=1e-6)


def test__task__saved_zipped_and_pushed__loads_with_its_answers(
    hub: HubServer,  # noqa: F811
    base_tokenizer: PreTrainedTokenizerFast,  # noqa: F811
    tmp_path: Path,
) -> None:
    composed = pipeline("tart-classification", model=compose(BASE), tokenizer=base_tokenizer)
    session = Session(composed, is_local=True)
    session.start(make_examples())
    session.answer("w1 w2")
    folder = session.save(str(tmp_path / "task"), include_texts=True)
    zipfile.ZipFile(session.archive()).extractall(tmp_path / "unzipped")
    address = session.push("me/page", TOKEN, private=True)
    assert address == f"{hub.url}/me/page"
    for name in (folder, str(tmp_path / "unzipped"), "me/page"):
        loaded = pipeline("tart-classification", model=name)
        assert same_answers(loaded("w1 w2", top_k=None), session.answers[0])
        assert (loaded.model.support.texts is not None) == (name == folder)


def test__tables__texts_of_visitors__escaped() -> None:
    shown = answers_table(["<b>${value}"], [[{"label": "<i>", "score": 0.5}]])
    assert "&lt;b&gt;&#36;&#123;value&#125;</td><td>&lt;i&gt;</td>" in shown
    vote = {"name": "plain", "label": "x", "score": 0.25, "weight": -0.5}
    found = {"views": [vote], "hints": [vote], "examples": [{"index": 3, "label": "x", "weight": 1.0}]}
    shown = explanation_tables(found)
    assert all(part in shown for part in ("view plain", "hint plain", "Example 3", "x (25%)", "-0.50", "+1.00"))
    assert "Nearest" not in explanation_tables({**found, "examples": []})
    assert text_choices(["a" * 61]) == [(f"1. {'a' * 60}…", 0)]
