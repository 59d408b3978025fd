"""Numbers of a report against scipy and against numbers worked out by hand."""

import math
import random
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
import yaml
from helpers.results import draw, make_record, write_results
from huggingface_hub import ModelCardData
from huggingface_hub.repocard_data import model_index_to_eval_results
from scipy import stats

from transformers_tart.cli import main
from transformers_tart.evaluation.records import Record
from transformers_tart.evaluation.report import Comparison, tables
from transformers_tart.evaluation.report.comparison import (
    METRIC_FORMATS,
    MetricFormat,
    choose_reference,
    match_runs,
    mean_over_tasks,
)
from transformers_tart.evaluation.report.contrasts import contrast
from transformers_tart.evaluation.report.page import format_markdown, format_model_index, list_results
from transformers_tart.evaluation.report.statistics import (
    Estimate,
    PairedTest,
    average,
    estimate,
    paired_test,
    wins_ties_losses,
)
from transformers_tart.evaluation.report.tables import Table, code_cell, escape_markdown, format_seeds


ACCURACY, LOG_LOSS = METRIC_FORMATS["accuracy"], METRIC_FORMATS["log_loss"]


def make_records(values: dict[str, list[float]], task: str = "a", k: int = 8) -> list[Record]:
    """Return records of methods, with a value for each seed."""
    return [
        make_record(task, k, seed, method, value)
        for method, found in values.items()
        for seed, value in enumerate(found)
    ]


def fail(record: Record, error: str = "OutOfMemoryError: <full> | 2 GiB\nmore") -> Record:
    return replace(record, metrics={}, error=error)


def read_row(table: Table, start: str) -> list[str]:
    line = next(line for line in table.markdown().splitlines() if line.startswith(start))
    return [part.strip() for part in line.strip("|").split(" | ")]


def test__estimate__seeds__interval_of_scipy() -> None:
    values = [0.61, 0.55, 0.72, 0.64]
    found = estimate(values)
    low, high = stats.t.interval(0.95, 3, stats.tmean(values), stats.sem(values))
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx((low, high))
    five = estimate([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (five.mean, five.half_width) == (3.0, pytest.approx(1.963, abs=1e-3))
    assert estimate([0.5]).half_width is None


def test__average__two_tasks__degrees_of_freedom_of_welch() -> None:
    first, second = [0.6, 0.5, 0.9, 0.4], [0.2, 0.25, 0.27]
    found = average([dict(enumerate(first)), dict(enumerate(second))])
    # the interval of a difference of means is that of their sum, twice as wide as that of their average
    welch = stats.ttest_ind(first, [-value for value in second], equal_var=False).confidence_interval(0.95)
    assert found.mean == pytest.approx((sum(first) / 4 + sum(second) / 3) / 2)
    assert found.half_width == pytest.approx((welch.high - welch.low) / 4)


def test__average__two_draws__mean_without_interval() -> None:
    assert average([{0: 0.6, 1: 0.5}]) == Estimate(0.55)
    assert average([{0: 0.6, 1: 0.5, 2: 0.7}, {0: 0.1, 1: 0.2}]).half_width is None
    assert average([{0: 0.6, 1: 0.5, 2: 0.7}]).format(100) == "60.0 ± 24.8"


@pytest.mark.parametrize("pairs", [1, 2, 9, 20, 50, 51, 200])
def test__paired_test__differences__wilcoxon_of_scipy(pairs: int) -> None:
    rng = random.Random(pairs)
    differences = [rng.gauss(0.2, 1) for _ in range(pairs)]
    found = paired_test(differences)
    assert found.p_value == pytest.approx(stats.wilcoxon(differences).pvalue)
    assert (found.pairs, found.ties) == (pairs, 0)


@pytest.mark.parametrize("pairs", [6, 7, 8, 300])  # all signs, and the normal approximation
def test__paired_test__differences_alike__wilcoxon_of_scipy(pairs: int) -> None:
    rng = random.Random(pairs)
    differences = [rng.choice([-0.02, -0.01, 0.0, 0.01, 0.02, 0.03]) for _ in range(pairs)]
    found = paired_test(differences)
    assert found.p_value == pytest.approx(stats.wilcoxon(differences, zero_method="pratt").pvalue)
    assert found.ties == differences.count(0.0)


def test__paired_test__equal_on_paper__a_tie() -> None:
    differences = [0.3 - 0.2 - 0.1, 0.1, 0.3 - 0.2, -0.2]
    # of the 8 sums of the ranks 2.5, 2.5 and 4, five are at most the 5 that is found, and four at least
    assert paired_test(differences) == PairedTest(1.0, 4, 1)
    assert wins_ties_losses(differences) == (2, 1, 1)


def test__paired_test__no_difference_at_all__certain_to_be_chance() -> None:
    assert paired_test([0.0, 1e-17]).p_value == 1.0


def test__match__seed_that_a_method_lacks__left_out_of_all() -> None:
    records = make_records({"tart": [0.5, 0.6, 0.7], "probe": [0.4, 0.5, 0.6]})
    records[1] = fail(records[1])
    matched = match_runs(records, ["tart", "probe"], ACCURACY.value)
    assert (matched.counted, matched.left_out) == (2, 1)
    assert matched.groups[0].values == {"tart": {0: 0.5, 2: 0.7}, "probe": {0: 0.4, 2: 0.6}}
    assert "2 of 3 support sets" in tables.describe_matching(matched)


def test__match__method_that_cannot_read_a_task__out_of_the_means_and_not_of_the_task() -> None:
    both = {"tart": [0.5, 0.6], "probe": [0.4, 0.5]}
    records = (
        make_records(both)
        + make_records({"tart": [0.9, 0.9]}, task="many classes")
        + make_records({"tart": [0.8]}, k=16)
    )
    matched = match_runs(records, ["tart", "probe"], ACCURACY.value)
    assert matched.left_out == 0
    means = tables.tabulate_means(matched, ACCURACY)
    assert read_row(means, "| 1 task | 8")[2:] == ["**55.0**", "45.0"]
    assert read_row(means, "| 1 task | 16")[2:] == ["80.0", "–"]
    assert len(means.rows) == 2  # none over all k
    assert read_row(tables.tabulate_tasks(matched, ACCURACY), "| many classes")[1:] == ["8", "2", "90.0", "–"]
    assert "1 of 3 pairs of task and k lack a method" in tables.describe_matching(matched)


def test__panels__tasks_of_different_sizes__apart() -> None:
    records = draw(2, "abc") + draw(2, "d", (8,)) + draw(2, "ef", (4, 8))
    matched = match_runs(records, ["tart", "probe"], ACCURACY.value)
    assert matched.panels() == [(["a", "b", "c"], [8, 16]), (["e", "f"], [4, 8])]
    alone = match_runs(draw(2, "d"), ["tart", "probe"], ACCURACY.value)
    assert alone.panels() == [(["d"], [8, 16])]


def test__format_tasks__best__bold_where_it_looks_best() -> None:
    records = make_records({"tart": [0.81234], "probe": [0.8121], "other": [0.7]})
    matched = match_runs(records, ["tart", "probe", "other"], ACCURACY.value)
    assert read_row(tables.tabulate_tasks(matched, ACCURACY), "| a")[3:] == ["**81.2**", "**81.2**", "70.0"]
    losses = match_runs(records, ["tart", "probe", "other"], LOG_LOSS.value)
    assert read_row(tables.tabulate_tasks(losses, LOG_LOSS), "| a")[3:] == ["**0.188**", "**0.188**", "0.300"]


def test__format_means__tasks_and_sizes__means_by_hand() -> None:
    records = draw()
    matched = match_runs(records, ["probe", "tart"], ACCURACY.value)
    means = tables.tabulate_means(matched, ACCURACY)
    for k in (8, 16):
        row = read_row(means, f"| mean of 3 tasks | {k} ")
        chosen = [r.metrics["accuracy"] for r in records if r.k == k and r.method == "tart"]
        assert row[3].startswith(f"**{100 * math.fsum(chosen) / len(chosen):.1f}**")
    for_tart = mean_over_tasks(matched.complete(16), "tart")
    assert row[3] == f"**{100 * for_tart.mean:.1f}** ± {100 * for_tart.half_width:.1f}"


def tabulate_differences(records: list[Record], metric: MetricFormat) -> Table:
    return tables.tabulate_differences(contrast(Comparison.of(records, "tart"), metric), "tart", metric)


def test__differences__draws__numbers_by_hand() -> None:
    records = draw()
    records.remove(next(r for r in records if r.method == "probe"))
    table = tabulate_differences(records, ACCURACY)
    values = {r.key: r.metrics["accuracy"] for r in records}
    for k, count in ((8, 11), (16, 12)):
        row = read_row(table, f"| probe | {k} ")
        keys = [key[:3] for key in values if key[1] == k and key[3] == "probe"]
        pairs = {key: values[(*key, "probe")] - values[(*key, "tart")] for key in keys}
        means = [fmean(found for key, found in pairs.items() if key[0] == task) for task in "abc"]
        assert float(row[2].split(" ")[0]) == pytest.approx(100 * fmean(means), abs=0.006)
        assert row[3] == "0 / 0 / 3"
        assert float(row[4]) == pytest.approx(2 / 2**count, rel=0.05)  # all of one sign, as the wins say
        # three tasks all of one sign: 2 / 2**3
        assert row[6:] == ["0.25", "3", str(count), str(12 - count)]
    assert len(table.rows) == 2


def test__differences__loss__smaller_wins() -> None:
    records = make_records({"tart": [0.5, 0.6, 0.8], "probe": [0.4, 0.5, 0.6]})
    row = read_row(tabulate_differences(records, LOG_LOSS), "| probe")
    assert row[2].startswith("+0.1333 ± ")
    assert row[3] == "0 / 0 / 1"
    assert tabulate_differences(make_records({"tart": [0.5]}), LOG_LOSS).rows == []


def test__format_costs__methods__mean_seconds_and_largest_memory() -> None:
    row = read_row(tables.tabulate_costs(draw(), ["probe", "tart"]), "| tart")
    assert row == ["tart", "cpu", "116", "16", "32"]


def test__format_costs__seconds_of_the_cpus__beside_those_of_the_clock() -> None:
    records = [replace(record, cpu_seconds=2 * record.seconds) for record in draw()]
    table = tables.tabulate_costs(records, ["probe", "tart"])
    assert table.markdown().splitlines()[0].endswith("| s, k=8 | s, k=16 | CPU s, k=8 | CPU s, k=16 |")
    assert read_row(table, "| tart") == ["tart", "cpu", "116", "16", "32", "32", "64"]
    older = [*records[:-1], replace(records[-1], cpu_seconds=None)]
    assert not any("CPU" in title for title in tables.tabulate_costs(older, ["probe", "tart"]).header)


def test__format_markdown__examples_of_each_class__in_place_of_k() -> None:
    sizes = {8: 0, 16: 4}
    comparison = Comparison.of([replace(record, per_class=sizes[record.k]) for record in draw()])
    page = format_markdown(comparison)
    assert "| of each class | 0, 4 |" in page
    assert "| Accuracy, % | of each class | probe | tart |" in page
    assert "| mean of 3 tasks | 4 |" in page
    assert list_results(comparison, "tart")[0].metric_name == "Accuracy, of each class=0"
    mixed = Comparison.of([replace(record, per_class=0 if record.k == 8 else None) for record in draw()])
    assert mixed.size == "k"


def test__format_failures__alike__one_line_with_the_seeds() -> None:
    records = [fail(make_record(seed=seed)) for seed in (0, 1, 2, 5)] + [fail(make_record(seed=7), "other")]
    lines = tables.tabulate_failures(records).markdown().splitlines()[2:]
    assert lines == [
        "| a | 8 | 0–2, 5 | tart | `OutOfMemoryError: <full> \\| 2 GiB` |",
        "| a | 8 | 7 | tart | `other` |",
    ]
    assert tables.tabulate_failures([make_record()]).rows == []


def test__names__markup__taken_literally() -> None:
    assert escape_markdown("a|b *c*\n<d>") == "a\\|b \\*c\\* \\<d>"
    assert code_cell("").markdown() == "–"
    assert len(code_cell("x" * 500).markdown()) == 202
    assert format_seeds([3, 1, 2, 9]) == "1–3, 9"


@pytest.mark.parametrize(
    ("methods", "expected"), [(["probe", "tart_loo", "tart"], "tart_loo"), (["probe", "other"], "probe")]
)
def test__choose_reference__not_given__the_first_tart(methods: list[str], expected: str) -> None:
    assert choose_reference(methods) == expected


def test__comparison__what_was_not_measured__said() -> None:
    with pytest.raises(ValueError, match="'lora' was not measured; these were: tart"):
        Comparison.of([make_record()], reference="lora")
    with pytest.raises(ValueError, match="Not measured: brier_score; the results have accuracy, log_loss"):
        Comparison.of([make_record()], metrics=["accuracy", "brier_score"])
    with pytest.raises(ValueError, match="All 1 runs failed, the first with: OutOfMemoryError"):
        Comparison.of([fail(make_record())])
    with pytest.raises(ValueError, match="none of the metrics accuracy"):
        Comparison.of([replace(make_record(), metrics={"color": 1.0})])


def test__page__results__every_part(tmp_path: Path) -> None:
    records = [*draw(), fail(make_record(k=8, seed=9))]
    page = format_markdown(Comparison.of(records))
    for line in (
        "| tasks (3) | a (2 classes), b (2 classes), c (2 classes) |",
        "| k | 8, 16 |",
        "| seeds | 0–3 |",
        "| runs | 48 measured, 1 failed |",
        "## Differences from tart",
        "## Failed runs",
    ):
        assert line in page.splitlines()
    assert page.count("24 of 24 support sets") == 1
    assert "plots/" not in page


def test__model_index__results__those_of_the_tables() -> None:
    comparison = Comparison.of(draw())
    results = list_results(comparison, "tart")
    assert ModelCardData(model_name="x", eval_results=results).to_dict()["model-index"]
    index = yaml.safe_load(format_model_index(comparison))["model-index"]
    name, read = model_index_to_eval_results(index)
    assert name == "org/model"
    assert len(read) == 3 * 2 * 2
    table = tables.tabulate_tasks(comparison.match(ACCURACY), ACCURACY)
    for result in read:
        if result.metric_type == "accuracy":
            row = read_row(table, f"| {result.dataset_name} | {result.metric_args['k']} ")
            assert row[4].startswith(f"**{100 * result.metric_value:.1f}**")
            assert (result.metric_args["method"], result.metric_args["seeds"]) == ("tart", 4)


def test__report__no_plots__table_on_stdout_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_results(tmp_path / "results", [*draw(2), fail(make_record(seed=9))])
    options = ["--no-plots", "--output", str(tmp_path / "page"), "--reference", "probe"]
    assert main(["report", folder, *options]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("| Accuracy, % | k | seeds | probe | tart |\n")
    assert "| mean of 3 tasks | 16 |" in out
    assert "failed runs: 1," in err
    assert str(tmp_path) not in out + err
    assert sorted(path.name for path in (tmp_path / "page").iterdir()) == [
        "model_index.yaml",
        "report.html",
        "report.md",
    ]
    assert "method: probe" in (tmp_path / "page" / "model_index.yaml").read_text()


def test__report__metrics__the_first_on_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_results(tmp_path / "results", draw(2))
    assert main(["report", folder, "--no-plots", "--metrics", "log_loss"]) == 0
    assert capsys.readouterr().out.startswith("| Log loss, nats | k |")
    assert "Accuracy" not in (tmp_path / "results" / "report.md").read_text()


@pytest.mark.parametrize("options", [[], ["--reference", "lora"], ["--metrics", "macro_f1"]])
def test__report__nothing_to_compare__exit_code_1(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_results(tmp_path / "results", draw(1) if options else [])
    assert main(["report", folder, "--no-plots", *options]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("transformers-tart report: ")
