"""The plots of a report: contents, overlaps, and an error without matplotlib only when plots are requested."""

import sys
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest
from helpers.results import draw, make_record, write_results

from transformers_tart.cli import main
from transformers_tart.evaluation.records import Record
from transformers_tart.evaluation.report import Comparison, plots, write_report
from transformers_tart.evaluation.report.comparison import METRIC_FORMATS


pytest.importorskip("matplotlib")

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ACCURACY = METRIC_FORMATS["accuracy"]
SIZES = (8, 16, 32, 64, 128, 1024)


def draw_many(methods: int, tasks: int, sizes: tuple[int, ...] = SIZES) -> list[Record]:
    """Return results with long names and a dollar sign."""
    names = ["tart", *(f"method number {i}, which has a long $name$" for i in range(1, methods))]
    bins = [[0, 0.0, 0]] * 5 + [[20 * i, 2.0 * i * (5.5 + i), 9 * i] for i in range(5)]
    return [
        Record(
            f"data set {task} with a long $name$",
            2,
            k,
            seed,
            name,
            "org/model",
            {"accuracy": 0.5 + 0.01 * i + 0.0002 * k + 0.02 * seed},
            bins,
            0.01 * 10**i,
            100.0,
            "cpu",
            200,
        )
        for task in range(tasks)
        for k in sizes
        for seed in range(2)
        for i, name in enumerate(names)
    ]


def figures(records: list[Record], is_narrow: bool = False) -> dict[str, "Figure"]:
    """Draw all figures of results."""
    with plots.plotting():
        return {name: figure for name, _, figure in plots.draw_all(Comparison.of(records), is_narrow)}


def assert_nothing_overlaps(figure: "Figure") -> None:
    """Check panels with their texts, labels and legend, and the numbers along each axis."""
    figure.draw_without_rendering()
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    boxes += [part.get_window_extent() for part in (figure._supxlabel, figure._supylabel, figure.legends[0])]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    width, height = figure.bbox.size
    assert all(box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1 for box in boxes)
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = axis.get_view_interval()
            texts = [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            upright = [text.get_window_extent() for text in texts if not text.get_rotation()]
            assert not any(a.overlaps(b) for a, b in combinations(upright, 2))


@pytest.mark.slow
@pytest.mark.parametrize("is_narrow", [False, True])
@pytest.mark.parametrize(("methods", "tasks", "sizes"), [(10, 14, SIZES), (2, 1, (8, 16)), (3, 2, (8,))])
def test__plots__many_and_few__nothing_overlaps(
    methods: int, tasks: int, sizes: tuple[int, ...], is_narrow: bool
) -> None:
    for name, figure in figures(draw_many(methods, tasks, sizes), is_narrow).items():
        assert figure.get_figwidth() == plots.NARROW or not is_narrow
        assert len(figure.axes) == {"tasks": tasks, "calibration": methods}.get(name, 1)
        assert_nothing_overlaps(figure)


def test__means__axis__ticks_at_what_was_measured() -> None:
    (axes,) = figures(draw_many(2, 2))["means"].axes
    assert (axes.get_xscale(), list(axes.get_xticks())) == ("log", list(SIZES))
    assert [text.get_text() for text in axes.get_xticklabels()] == list(map(str, SIZES))
    assert axes.get_title() == "mean of 2 tasks"


def test__means__no_examples__a_place_left_of_one() -> None:
    records = [replace(record, per_class=record.k) for record in draw_many(3, 2, (0, 1, 2, 4, 8))]
    figure = figures(records)["means"]
    (axes,) = figure.axes
    places = [axes.transData.transform((tick, 0.5))[0] for tick in axes.get_xticks()]
    assert axes.get_xticks().tolist() == [0, 1, 2, 4, 8]
    steps = [after - before for before, after in pairwise(places)]
    assert steps == pytest.approx([steps[-1]] * 4, rel=0.05)


def test__means__curves__numbers_of_the_tables() -> None:
    records = [
        make_record("a", 8, 0, "tart", 0.5),
        make_record("b", 8, 0, "tart", 0.7),
        make_record("a", 8, 0, "probe", 0.25),
    ]
    records += [make_record("b", 8, 0, "probe", 0.75)]
    matched = Comparison.of(records).match(ACCURACY)
    with plots.plotting():
        styles = plots.choose_styles(["tart", "probe"], "tart")
        (axes,) = plots.draw_against_size(matched, ACCURACY, styles, matched.panels(), plots.LARGE).axes
    curves = [line for line in axes.lines if line.get_marker() != "None"]
    assert [curve.get_ydata()[0] for curve in curves] == pytest.approx([60, 50])


def test__calibration__pooled__sums_over_compared_runs() -> None:
    records = draw_many(2, 1, (8,))
    extra = Record("alone", 2, 8, 9, "tart", "m", {"accuracy": 1.0}, [[1, 1.0, 1]] * 10, 1.0, 1.0, "cpu", 10)
    lonely = [*records, extra, Record(**{**vars(extra), "task": records[0].task, "seed": 77})]
    matched = Comparison.of(lonely).match(ACCURACY)
    pooled = plots.pool_calibration(lonely, matched)
    # both seeds, and the run of a task where there is no other method; not the seed that one method lacks
    assert pooled["tart"][9] == pytest.approx([161, 2 * 2.0 * 4 * 9.5 + 1, 73])
    assert list(pooled) == ["tart", records[1].method]


def test__calibration__records_of_two_versions__pooled_by_their_confidence() -> None:
    records = draw_many(2, 1, (8,))
    bins = [[0.0, 0.0, 0.0]] * 14 + [[2.0, 1.9, 1.0]]
    newer = Record("new", 2, 8, 9, "tart", "m", {"accuracy": 1.0}, bins, 1.0, 1.0, "cpu", 2)
    matched = Comparison.of([*records, newer]).match(ACCURACY)
    before, after = (plots.pool_calibration(given, matched)["tart"] for given in (records, [*records, newer]))
    assert after[:9] == pytest.approx(before[:9])
    assert after[9] == pytest.approx(before[9] + [2, 1.9, 1])


def test__styles__twenty_methods__all_different() -> None:
    styles = plots.choose_styles([f"method {i}" for i in range(20)], "method 7")
    assert len({(style["color"], style["marker"], style["linestyle"]) for style in styles.values()}) == 20
    assert styles["method 7"]["zorder"] > styles["method 0"]["zorder"]
    assert styles["method 7"]["color"] == "#000000"


@pytest.mark.slow
def test__write_report__results__plots_embedded_and_settings_restored(tmp_path: Path) -> None:
    import matplotlib

    before = matplotlib.rcParams.copy()
    write_report(tmp_path, Comparison.of(draw_many(2, 2, (8, 16))))
    page = (tmp_path / "report.md").read_text()
    names = ["calibration", "means", "seconds", "tasks"]
    for name in names:
        assert f"](plots/{name}.png)" in page
        assert (tmp_path / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert ElementTree.parse(tmp_path / "plots" / f"{name}.svg").getroot().tag.endswith("svg")
    assert len(list((tmp_path / "plots").iterdir())) == 3 * len(names)
    assert {name for name in before if name != "backend" and before[name] != matplotlib.rcParams[name]} == set()


@pytest.mark.slow
def test__save__twice__the_same_bytes(tmp_path: Path) -> None:
    for name in ("first", "second"):
        figure = figures(draw_many(2, 1, (8,)))["means"]
        with plots.plotting():
            plots.save(figure, tmp_path, name)
    for kind in ("png", "svg"):
        assert (tmp_path / f"first.{kind}").read_bytes() == (tmp_path / f"second.{kind}").read_bytes()


@pytest.mark.slow
def test__write_report__no_probabilities__no_calibration_plot(tmp_path: Path) -> None:
    paths = write_report(tmp_path, Comparison.of(draw(1, "a", (8,))))
    assert [path.name for path in paths[3:]] == ["means.png", "tasks.png", "seconds.png"]


def test__matplotlib__not_installed__report_without_plots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"transformers-tart\[plots\]"):
        write_report(tmp_path, Comparison.of(draw(1)))
    folder = write_results(tmp_path / "results", draw(1))
    assert main(["report", folder]) == 0
    printed = capsys.readouterr().err
    assert "transformers-tart[plots]" in printed
    assert "wrote report.md, report.html" in printed
    assert main(["report", folder, "--no-plots"]) == 0
    assert "plots" not in capsys.readouterr().err
