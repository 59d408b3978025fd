"""The page in HTML: well formed, without requests, hostile names escaped, and the numbers of the page in markdown."""

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from helpers.results import draw, make_record, write_results

from transformers_tart.cli import main
from transformers_tart.evaluation.records import Record
from transformers_tart.evaluation.report import Comparison, write_report
from transformers_tart.evaluation.report.contrasts import describe_results
from transformers_tart.evaluation.report.page import (
    MAX_MATRIX,
    format_html,
    format_markdown,
    group_runs,
    tabulate_classes,
    tabulate_confusion,
)


VOID = {"meta", "img", "source", "br", "link"}
HOSTILE = '<script>alert("1")</script>{{ 7 * 7 }}&amp;|*x*'


class Page(HTMLParser):
    """A page, parsed; a tag that is not closed in order is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("th", "td"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"th", "td"} & set(self.open):
            self.tables[-1][-1][-1] += data


def add_classes(record: Record, confusion: list[list[int]], names: list[str] | None = None) -> Record:
    """Return a record with the fields of the classes."""
    names = names or ["no", "yes"]
    wrong = [[0, 1, 0.9], [2, 1, 0.8]]
    return replace(record, num_classes=len(names), label_names=names, confusion=confusion, wrong=wrong)


def read_markdown(text: str) -> list[list[list[str]]]:
    """Read the tables of markdown."""
    blocks = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    rows = [[line.strip("|").split(" | ") for line in block.splitlines()] for block in blocks]
    return [[[cell.strip().replace("**", "") for cell in row] for row in (t[0], *t[2:])] for t in rows]


def test__html__results__well_formed_and_the_tables_of_the_markdown() -> None:
    comparison = Comparison.of([*draw(), replace(make_record(seed=9), metrics={}, error="MemoryError: 2 GiB")])
    page, tables = Page(format_html(comparison)), read_markdown(format_markdown(comparison))
    assert len(tables) == 9
    assert sorted(page.tables) == sorted([[cell.strip("`") for cell in row] for row in table] for table in tables)
    assert page.addresses == []


@pytest.mark.slow
def test__html__plots__inside_and_nothing_requested(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    write_report(tmp_path, Comparison.of(draw(3)))
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    assert page.tags.count("img") == page.tags.count("source") == 3
    assert all(address.startswith("data:image/svg+xml;base64,") for address in page.addresses)
    assert not re.search(r"https?:|url\(|@import|<link", text)


def test__html__hostile_names__text_alone() -> None:
    records = [
        add_classes(replace(record, task=HOSTILE, method=f"{record.method}{HOSTILE}"), [[0, 0, 50]], [HOSTILE, "b"])
        for record in draw(3, "a")
    ]
    records.append(replace(records[0], seed=7, metrics={}, error=HOSTILE))
    text = format_html(Comparison.of(records))
    page = Page(text)
    assert page.tags.count("script") == 1
    assert "49" not in {cell for table in page.tables for row in table for cell in row}
    assert any(HOSTILE in row[0] for table in page.tables for row in table)
    assert "alert(" not in re.sub(r"&lt;script&gt;alert\(", "", text)


def test__html__records_of_former_versions__without_classes(tmp_path: Path) -> None:
    folder = Path(__file__).parents[1] / "results_0.1"
    assert main(["report", str(folder), "--no-plots", "--output", str(tmp_path)]) == 0
    text = (tmp_path / "report.html").read_text()
    assert "<h2>Classes</h2>" not in text
    assert Page(text).tables


def test__classes__seeds__summed_and_measured_by_hand() -> None:
    records = [
        add_classes(make_record(seed=0), [[0, 0, 20], [0, 1, 5], [1, 1, 15], [1, 0, 10]]),
        add_classes(make_record(seed=1), [[0, 0, 25], [1, 1, 25]]),
    ]
    (runs,) = group_runs(Comparison.of(records))
    cells = [[cell.text for cell in row] for row in tabulate_classes(runs).rows]
    assert cells == [["no", "81.8", "90.0", "85.7", "50", "55"], ["yes", "88.9", "80.0", "84.2", "50", "45"]]
    assert [[cell.text for cell in row] for row in tabulate_confusion(runs).rows] == [
        ["no", "45", "5"],
        ["yes", "10", "40"],
    ]
    assert tabulate_confusion(runs).rows[1][1].share == 0.2
    assert runs.seeds == "0–1"


def test__classes__many__the_pairs_confused_most() -> None:
    names = [f"class {i}" for i in range(MAX_MATRIX + 1)]
    confusion = [[i, i, 5] for i in range(len(names))] + [[3, 4, 2], [4, 3, 7]]
    (runs,) = group_runs(Comparison.of([add_classes(make_record(), confusion, names)]))
    table = tabulate_confusion(runs)
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["class 4", "class 3", "7", "58.3"],
        ["class 3", "class 4", "2", "28.6"],
    ]
    unseen = tabulate_classes(replace(runs, records=[add_classes(make_record(), [[0, 0, 50]], names)])).rows[1]
    assert [cell.text for cell in unseen] == ["class 1", "–", "–", "–", "0", "0"]


def test__classes__number_without_a_name__refused() -> None:
    (runs,) = group_runs(Comparison.of([add_classes(make_record(), [[0, 2, 50]])]))
    with pytest.raises(ValueError, match="confuses class 0 with class 2 of 2"):
        tabulate_classes(runs)


def test__verdict__wins_and_losses__as_they_are() -> None:
    values = {
        "tart": (0.7, 0.71, 0.72),
        "better": (0.8, 0.81, 0.82),
        "worse": (0.5, 0.51, 0.52),
        "close": (0.6, 0.7, 0.8),
    }
    seconds = {"tart": 1.0, "better": 4.0, "worse": 0.01, "close": 1.0}
    records = [
        replace(make_record(task, k, seed, method, value), cpu_seconds=seconds[method])
        for method, found in values.items()
        for task in "ab"
        for k in (8, 16)
        for seed, value in enumerate(found)
        if (task, method, k) != ("b", "worse", 16)
    ]
    overview, reading, first, second = describe_results(Comparison.of(records))
    assert overview.startswith(
        "Accuracy of tart against 3 other methods: at k = 8 ahead of 1 and behind 1 of 3; at k = 16"
    )
    assert "CPU seconds" in reading
    assert "ahead of worse by 20.0 ± 0.0 points (2 of 2 tasks, 100 times the cost); " in first
    assert "behind better by 10.0 ± 0.0 points (0 of 2 tasks, 0.25 times the cost); " in first
    assert re.search(
        r"no clear difference from close \(\+1\.0 ± \d+\.\d points, 2 of 2 tasks, 1 times the cost\)\.", first
    )
    assert "ahead of worse by 20.0 ± 0.0 points (1 of 1 task, 100 times the cost)" in second


def test__verdict__loss_and_nothing_in_common__in_words() -> None:
    records = [make_record(seed=s, method=m, accuracy=a) for s in (0, 1) for m, a in (("tart", 0.6), ("other", 0.5))]
    assert (
        "ahead of other by 0.100 nats (1 of 1 task, 1 times"
        in describe_results(Comparison.of(records, None, ["log_loss"]))[2]
    )
    apart = [make_record(), make_record("b", method="other")]
    assert describe_results(Comparison.of(apart)) == [
        "tart has no support set in common with another method, so nothing is compared."
    ]
    assert "Other differences" in describe_results(Comparison.of([make_record(), make_record(method="other")]))[0]


def write_task(path: Path, rows: int = 50) -> Path:
    """Write a task, of which the even rows are of the class no, and the odd ones of the class yes."""
    lines = [
        {"text": f"text {i} <b>&</b>", "label": ("no", "yes")[i % 2], "split": split}
        for split in ("train", "test")
        for i in range(rows)
    ]
    path.write_text("".join(json.dumps({**line, "text": f"{line['split']} {line['text']}"}) + "\n" for line in lines))
    return path


def write_measured(folder: Path) -> str:
    """Write results of the task `a`, with their settings."""
    records = [add_classes(make_record(seed=seed), [[0, 0, 20], [0, 1, 5], [1, 1, 25]]) for seed in (0, 1)]
    write_results(folder, records)
    (folder / "settings.json").write_text(json.dumps({"max_test": 50, "test_seed": 0, "sampling": "balanced"}))
    return str(folder)


def test__show_texts__task__texts_on_the_page_and_never_otherwise(tmp_path: Path) -> None:
    folder, task = write_measured(tmp_path / "results"), write_task(tmp_path / "a.jsonl")
    assert main(["report", folder, "--no-plots"]) == 0
    assert "test text" not in (tmp_path / "results" / "report.html").read_text()
    assert main(["report", folder, "--no-plots", "--show-texts", str(task)]) == 0
    text = (tmp_path / "results" / "report.html").read_text()
    (table,) = (table for table in Page(text).tables if table[0][0] == "text")
    assert table[1:] == [
        ["test text 0 <b>&</b>", "no", "yes", "90.0", "0–1"],
        ["test text 2 <b>&</b>", "no", "yes", "80.0", "0–1"],
    ]
    assert "test text" not in (tmp_path / "results" / "report.md").read_text()


@pytest.mark.parametrize(
    ("name", "rows", "message"), [("a", 48, "has changed since"), ("b", 50, "no runs of the task b")]
)
def test__show_texts__another_task__refused(
    name: str, rows: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, task = write_measured(tmp_path / "results"), write_task(tmp_path / f"{name}.jsonl", rows)
    assert main(["report", folder, "--no-plots", "--show-texts", str(task)]) == 1
    assert message in capsys.readouterr().err


def test__folders__several_models__methods_by_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = write_results(tmp_path / "first", draw(3))
    second = write_results(tmp_path / "second", [replace(record, model="org/other") for record in draw(3)])
    assert main(["report", first, second, "--no-plots"]) == 1
    assert "--output" in capsys.readouterr().err
    assert main(["report", first, second, "--no-plots", "--output", str(tmp_path / "both")]) == 0
    assert "| probe (org/model) | tart (org/model) | probe (org/other) | tart (org/other) |" in capsys.readouterr().out
    assert "against 3 other methods" in (tmp_path / "both" / "report.html").read_text()


def test__folders__models_of_different_tasks__names_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = write_results(tmp_path / "first", draw(3, "a"))
    second = write_results(tmp_path / "second", [replace(record, model="org/other") for record in draw(3, "b")])
    for folder, count in ((first, 100), (second, 200)):
        (Path(folder) / "settings.json").write_text(json.dumps({"max_test": count}))
    assert main(["report", first, second, "--no-plots", "--output", str(tmp_path / "both")]) == 0
    assert "| probe | tart |" in capsys.readouterr().out
    assert not (tmp_path / "both" / "model_index.yaml").exists()  # of two models


@pytest.mark.parametrize(
    ("changes", "message"),
    [({}, "both hold probe on a with k=8"), ({"model": "other", "test_rows": 40}, "test rows 50 and 40")],
)
def test__folders__not_comparable__refused(
    changes: dict, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write_results(tmp_path / "first", draw(1))
    second = write_results(tmp_path / "second", [replace(record, **changes) for record in draw(1)])
    assert main(["report", first, second, "--no-plots", "--output", str(tmp_path / "both")]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("width", [400, 1400])
def test__html__browser__fits_and_sorts_by_keys(width: int, tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    write_report(tmp_path, Comparison.of([add_classes(record, [[0, 0, 25], [1, 1, 25]]) for record in draw(3)]), False)
    with playwright.sync_playwright() as started:
        try:
            browser = started.chromium.launch(executable_path=shutil.which("chromium"))
        except playwright.Error as err:
            pytest.skip(f"no browser: {err}")
        page = browser.new_page(viewport={"width": width, "height": 900})
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto((tmp_path / "report.html").as_uri())
        page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        title = page.locator("thead th").nth(3)
        for order, expected in (("ascending", ["8", "16"]), ("descending", ["16", "8"])):
            title.locator("button").focus()
            page.keyboard.press("Enter")
            assert title.get_attribute("aria-sort") == order
            assert page.locator("table").first.locator("tbody tr td:nth-child(2)").all_inner_texts() == expected
        assert errors == []
        browser.close()
