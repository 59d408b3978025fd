"""The page itself: by clicks in headless Chromium, where Gradio, Playwright and a browser are installed."""

import argparse
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.media_backbones import save_media
from helpers.scripts import CARDS, load_script
from transformers import pipeline

from transformers_tart import TartClassificationPipeline
from transformers_tart.cli import main
from transformers_tart.commands import ui
from transformers_tart.ui import serve
from transformers_tart.ui.page import SAMPLE, SAMPLE_TEXTS, import_gradio


ODD = (
    "id,stars,what they said\n1,good,I love this pan\n2,bad,It broke at once\n3,good,Great value\n4,bad,It fell off\n"
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SPACE = CARDS / "space"


def test__command__without_gradio__names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["ui"]) == 1
    assert "pip install 'transformers-tart[ui]'" in capsys.readouterr().err


def test__command__image_model__refused_before_loading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ui, "import_gradio", lambda: None)
    assert main(["ui", "--model", save_media(tmp_path, "vit")]) == 1
    assert "reads images, and the page is for texts" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "is_local"),
    [([], True), (["--host", "0.0.0.0"], False), (["--share"], False), (["--host", "::1"], True)],
)
def test__command__host_and_share__decide_what_visitors_may(options: list[str], is_local: bool) -> None:
    parser = argparse.ArgumentParser()
    ui.add_options(parser)
    assert ui.is_local(parser.parse_args(options)) == is_local


def test__space__files__belong_together() -> None:
    facts = yaml.safe_load((SPACE / "README.md").read_text().split("---\n")[1])
    assert (facts["sdk"], facts["app_file"], facts["license"]) == ("gradio", "app.py", "apache-2.0")
    assert len(facts["short_description"]) <= 60  # the limit of the Hub
    assert facts["models"] == [load_script("space/app.py").E5["model"]]
    assert (SPACE / "requirements.txt").read_text() == "transformers-tart[ui]\n"


@pytest.fixture(scope="module")
def classify() -> TartClassificationPipeline:
    """A pipeline of the model inside the package."""
    return pipeline("tart-classification")


@pytest.fixture(scope="module")
def address(classify: TartClassificationPipeline) -> Iterator[str]:
    """Address of a page that is served."""
    pytest.importorskip("gradio", reason="the page needs gradio")
    page = serve(classify, is_local=True, server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
    yield page.local_url
    page.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless browser of Debian."""
    api = pytest.importorskip("playwright.sync_api", reason="clicks need playwright")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"clicks need a browser: none of {BROWSERS} is installed")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


class Visitor:
    """A visitor of the page, who notes all requests and errors of the browser."""

    def __init__(self, browser: Any, address: str):
        self.page = browser.new_page()
        self.page.set_default_timeout(60_000)
        self.requests: set[str] = set()
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.requests.add(re.sub(r"(//[^/]+).*", r"\1", request.url)))
        self.page.on("console", lambda line: self.errors.append(line.text) if line.type == "error" else None)
        self.page.goto(address)

    def click(self, name: str, role: str = "button") -> None:
        self.page.get_by_role(role, name=name, exact=True).click()

    def fill(self, label: str, text: str) -> None:
        self.page.get_by_label(label).fill(text)

    def expect(self, text: str) -> None:
        self.page.get_by_text(text).first.wait_for()

    def expect_task(self, text: str) -> None:
        self.page.wait_for_function(
            "text => [...document.querySelectorAll('textarea')].some(box => box.value === text)", arg=text
        )

    def expect_tidy(self, address: str) -> None:
        """Check that nothing was fetched from elsewhere, nothing failed, and nothing is wider than the window."""
        assert self.requests - {"blob:", "data:"} == {address.rstrip("/")}
        assert not self.errors
        for width in (400, 1400):
            self.page.set_viewport_size({"width": width, "height": 900})
            assert self.page.evaluate("document.documentElement.scrollWidth") == width
        self.page.close()


def test__gradio__imported__telemetry_off() -> None:
    pytest.importorskip("gradio", reason="the page needs gradio")
    import_gradio()
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"


@pytest.mark.slow
def test__page__pasted_table__classified_corrected_and_kept(address: str, browser: Any, tmp_path: Path) -> None:
    visitor = Visitor(browser, address)
    visitor.click("Use these examples")
    visitor.expect("There are no examples yet")
    visitor.fill("Labeled examples", ODD)
    visitor.click("Use these examples")
    visitor.expect_task("Check the columns of texts and labels above, then press the button once more.")
    visitor.click("Use these examples")
    visitor.expect_task("4 examples of 2 classes: bad (2), good (2).")
    visitor.fill("Texts to classify", "It came <b>late</b> ${value}\nI like it very much")
    visitor.click("Classify")
    visitor.expect("Nearest examples.")
    assert visitor.page.locator(".tart-table").count() == 3
    visitor.expect("It came <b>late</b> ${value}")
    visitor.expect("hint label_similarity")
    right = visitor.page.get_by_label("Right label")
    right.fill("late")
    right.press("Enter")
    visitor.click("Add as an example")
    visitor.expect_task("5 examples of 3 classes: bad (2), good (2), late (1).")
    visitor.click("Undo the last addition")
    visitor.expect_task("4 examples of 3 classes: bad (2), good (2), late (0).")
    visitor.click("Make a zip file")
    with visitor.page.expect_download() as download:
        visitor.page.locator("a[download]").first.click()
    with zipfile.ZipFile(io.BytesIO(download.value.path().read_bytes())) as archive:
        assert {"config.json", "support.safetensors"} <= set(archive.namelist())
    visitor.click("Folder", "tab")
    visitor.fill("Folder on this machine", str(tmp_path / "task"))
    visitor.click("Save")
    visitor.expect_task(str(tmp_path / "task"))
    visitor.click("Hub", "tab")
    visitor.click("Push")
    visitor.expect("Write the name of the repository first")
    visitor.expect_tidy(address)
    task = pipeline("text-classification", model=str(tmp_path / "task"))
    assert set(task.model.config.label2id) == {"bad", "good", "late"}


@pytest.mark.slow
def test__page__file_or_labels_of_two_visitors__tasks_of_their_own(address: str, browser: Any, tmp_path: Path) -> None:
    first, second = Visitor(browser, address), Visitor(browser, address)
    (tmp_path / "sample.csv").write_text(SAMPLE)
    first.click("Upload", "tab")
    first.page.locator("input[type=file]").first.set_input_files(tmp_path / "sample.csv")
    first.expect("sample.csv")
    second.click("Only labels", "tab")
    second.fill("Names of the classes", "money, family")
    second.click("Use these labels")
    second.expect_task("No examples, 2 classes: money, family.")
    first.click("Use this file")
    first.expect_task("8 examples of 2 classes: ham (4), spam (4).")
    for visitor, label in ((first, "spam"), (second, "money")):
        visitor.fill("Texts to classify", SAMPLE_TEXTS)
        visitor.click("Classify")
        visitor.page.locator(".tart-table td", has_text=label).first.wait_for()
    first.page.get_by_label("Look closer at").click()
    first.page.get_by_role("option").nth(1).click()
    first.page.locator("[data-testid=label-output-value]", has_text="ham").wait_for()
    for visitor in (first, second):
        visitor.expect_tidy(address)


@pytest.mark.slow
def test__command__interrupted__exit_code_0() -> None:
    pytest.importorskip("gradio", reason="the page needs gradio")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers_tart", "ui", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as served:
        assert served.stderr is not None
        assert any(f"The page is at http://127.0.0.1:{port}/" in line for line in served.stderr)
        served.send_signal(signal.SIGINT)
        out, _ = served.communicate(timeout=60)
    assert (served.returncode, out) == (0, "")
