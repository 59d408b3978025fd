"""`bench`: both sides do the same work in turn, times are counted and scaled rightly, and nothing else is claimed."""

import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

import pytest
import torch
from conftest import make_texts
from transformers import GPT2Config

from transformers_tart.bench import memory, models
from transformers_tart.bench.machine import machine_facts, version_facts
from transformers_tart.bench.models import load_language_model, make_pipeline
from transformers_tart.bench.pairs import PAIRS, Pair
from transformers_tart.bench.profile import BACKBONE, PARTS, REST, format_profile, profile_pipeline, share_outside
from transformers_tart.bench.published import SampledProcedure, whiten
from transformers_tart.bench.report import PairResult, format_row
from transformers_tart.bench.texts import draw_texts
from transformers_tart.bench.timing import TOLERANCE, Comparison, Meter, Times, check, measure
from transformers_tart.bench.workload import Workload, draw_embeddings
from transformers_tart.cli import main
from transformers_tart.embeddings.reference import LABEL_WORDS, PublishedProcedure
from transformers_tart.projection import WhitenedPCA


CPU = torch.device("cpu")
TINY = Workload(k=18, queries=5, naive_queries=2, backbone="random:tiny")


@pytest.fixture(autouse=True)
def _tiny_model(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 2048, "vocab_size": 8192}
    monkeypatch.setitem(models.RANDOM, "tiny", lambda: GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))


class FakeClock:
    """A clock that stands still unless it is told to go on."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def compare(naive: Callable[[Meter], torch.Tensor], ours: Callable[[], torch.Tensor], **fields: Any) -> Comparison:
    """A comparison of two functions that give one row."""
    facts = {"rows": [0], "size": 1, "computed": 1, "total": 1, "model": "made", "dtype": torch.float32, "device": CPU}
    return Comparison(naive=naive, ours=ours, **{**facts, **fields})


def constant(value: float, rows: int = 1) -> Callable[..., torch.Tensor]:
    return lambda *_: torch.full((rows, 2), value)


def test__measure__any_pair__sides_in_turn_and_first_runs_not_counted() -> None:
    clock, calls = FakeClock(), list[str]()

    def side(name: str, durations: list[float]) -> Callable[..., torch.Tensor]:
        left = iter(durations)

        def run(*_: Meter) -> torch.Tensor:
            calls.append(name)
            clock.time += next(left)
            return torch.zeros(1)

        return run

    comparison = compare(side("naive", [100, 8, 2, 5]), side("ours", [100, 1, 4, 2]))
    times = measure(comparison, 3, clock, progress=lambda: calls.append("|"))
    assert calls == ["naive", "|", "ours", "|"] * 4
    assert times == Times([8, 2, 5], [8, 2, 5], [1, 4, 2], 0.0)


def test__measure__part_of_the_work__time_scaled_to_all_of_it() -> None:
    clock = FakeClock()

    def naive(meter: Meter) -> torch.Tensor:
        clock.time += 3  # paid once, whatever is left out
        with meter.sample(2, 10):
            clock.time += 4
        with meter.sample(5, 5):
            clock.time += 1
        return torch.zeros(1)

    times = measure(compare(naive, lambda: torch.zeros(1)), 1, clock)
    assert times.naive == [8]
    assert times.scaled == [3 + 4 * 10 / 2 + 1]


def test__result__median_and_ratio__of_the_scaled_times() -> None:
    comparison = compare(constant(0), constant(0), computed=20, total=1000)
    times = Times([1, 2, 3], [50, 100, 600], [2, 4, 5], 3e-7)
    result = PairResult.of(PAIRS["gpt2-reasoner"], TINY, comparison, times)
    assert result.ratio == 100 / 4
    cells = [cell.strip() for cell in format_row(result).strip("|").split("|")]
    assert cells[0] == "gpt2-reasoner"
    assert cells[6:] == ["100 (50..600)", "4 (2..5)", "25", "20 of 1000", "3.0e-07"]


@pytest.mark.parametrize(
    ("naive", "ours", "message"),
    [
        (constant(0.5), constant(0.51), "differ by 0.01"),
        (constant(0.5), constant(float("nan")), "differ by nan"),
        (constant(0.5), lambda: torch.zeros(1, 3), "shape"),
        (constant(0.5, rows=2), constant(0.5), "same work"),
        (constant(0.5), constant(0.5, rows=2), "same work"),
    ],
)
def test__measure__sides_disagree__error(naive: Callable, ours: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure(compare(naive, ours), 1)


def test__check__other_models__only_the_number_of_rows_counts() -> None:
    comparison = compare(constant(0), constant(1), agrees=False)
    assert check(comparison, torch.zeros(1), torch.ones(1, 4)) is None
    with pytest.raises(ValueError, match="same work"):
        check(comparison, torch.zeros(1), torch.ones(2))


def test__check__some_rows__compared_with_those_of_ours() -> None:
    comparison = compare(constant(0), constant(0), rows=[1, 3], size=4)
    ours = torch.arange(4.0)[:, None]
    assert check(comparison, ours[[1, 3]], ours) == 0.0
    with pytest.raises(ValueError, match="differ"):
        check(comparison, ours[[1, 2]], ours)


@pytest.mark.parametrize(
    ("asked", "total", "chosen"), [(2, 8, [2, 6]), (0, 3, [0, 1, 2]), (9, 3, [0, 1, 2]), (3, 9, [1, 4, 7])]
)
def test__sample__any_number__evenly_spread(asked: int, total: int, chosen: list[int]) -> None:
    assert replace(TINY, naive_queries=asked).sample(total) == chosen


def test__sample_by_length__mixed_texts__as_long_as_all_on_average() -> None:
    texts = draw_texts(500, 0, 1, 120)
    chosen = replace(TINY, naive_queries=20).sample_by_length(texts)
    lengths = torch.tensor([len(text) for text in texts]).float()
    assert len(set(chosen)) == 20
    assert abs(lengths[chosen].mean() / lengths.mean() - 1) < 0.05


@pytest.mark.parametrize("field", ["k", "queries", "naive_queries", "max_characters"])
def test__workload__number_out_of_range__error(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        replace(TINY, **{field: -1})


def test__texts__same_seed__same_texts_of_the_lengths_asked_without_label_words() -> None:
    texts = draw_texts(300, 3, 2, 40)
    assert texts == draw_texts(300, 3, 2, 40) != draw_texts(300, 4, 2, 40)
    assert {len(text.split()) for text in texts} == set(range(2, 41))
    assert not any(word in " ".join(texts).lower() for word in LABEL_WORDS)


def test__whiten__published__as_our_projection() -> None:
    support, _, queries = draw_embeddings(replace(TINY, k=40), 64)
    known, new = whiten(support, queries, 16)
    ours = WhitenedPCA(16).fit(support)
    torch.testing.assert_close(known, ours.transform(support), atol=1e-4, rtol=0)
    torch.testing.assert_close(new, ours.transform(queries), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", PAIRS)
def test__pair__tiny__same_work_and_agreement_where_it_is_asked(name: str) -> None:
    comparison = PAIRS[name].build(TINY)
    times = measure(comparison, 1)
    assert comparison.agrees == (name not in ("kernel-reasoner", "vanilla", "loo"))
    assert (times.difference is not None) == comparison.agrees
    assert (times.difference or 0.0) <= TOLERANCE[torch.float32]
    assert 0 < comparison.computed < comparison.total
    assert min(times.naive + times.scaled + times.ours) > 0


@pytest.mark.parametrize("name", [name for name in PAIRS if name not in ("kernel-reasoner", "vanilla", "loo")])
def test__pair__one_row_of_ours_wrong__error(name: str) -> None:
    comparison = PAIRS[name].build(TINY)

    def wrong() -> torch.Tensor:
        result = comparison.ours().clone()
        result[comparison.rows[-1]] += 0.01
        return result

    with pytest.raises(ValueError, match="do not compute the same"):
        measure(replace(comparison, ours=wrong), 1)


@pytest.mark.parametrize("protocol", ["stream", "vanilla", "loo"])
def test__sampled_procedure__some_passes__as_the_whole_procedure_in_those(protocol: str) -> None:
    model, texts, labels = load_language_model(TINY), draw_texts(9, 0, 3, 12), [0, 1, 0, 1, 1]
    clock, model_and = FakeClock(), (model.with_head, model.tokenizer, 7, 100)
    whole = torch.cat(PublishedProcedure(*model_and).embed(protocol, texts[:5], labels, texts[5:])[:2])
    passes = 1 if protocol == "vanilla" else 5
    sampled = SampledProcedure(*model_and, [(passes, [0]), (4, [1, 3])], Meter(clock))
    rows = torch.cat(sampled.embed(protocol, texts[:5], labels, texts[5:])[:2])
    made = [*(range(5) if protocol == "vanilla" else [0]), 6, 8]
    torch.testing.assert_close(rows[made], whole[made])
    assert not rows[[row for row in range(9) if row not in made]].any()


@pytest.mark.parametrize("k", [16, 258])
def test__gpt2_reasoner__support_set_that_the_head_cannot_read__error(k: int) -> None:
    with pytest.raises(ValueError, match=f"k is {k}"):
        PAIRS["gpt2-reasoner"].build(replace(TINY, k=k))


def test__protocol__prompt_too_long__error_names_the_tokens() -> None:
    with pytest.raises(ValueError, match="of 200 examples has .* and 2048 are read"):
        PAIRS["loo"].build(replace(TINY, k=200))


def test__load_language_model__mini__room_for_the_published_prompts() -> None:
    model = load_language_model(replace(TINY, backbone="mini"))
    assert model.with_head.config.max_position_embeddings == model.tokenizer.model_max_length == 2048
    assert model.backbone is model.with_head.base_model


def test__load_language_model__unknown_random__error_names_the_known() -> None:
    with pytest.raises(ValueError, match="gpt2-small"):
        load_language_model(replace(TINY, backbone="random:huge"))


def test__load_language_model__compiled__our_side_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = list[Any]()
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: compiled.append((self, options)))
    model = load_language_model(replace(TINY, compile=True))
    assert [(module is model.backbone, options) for module, options in compiled] == [(True, {"dynamic": True})]
    assert model.backbone is not model.with_head.base_model


def test__random__same_seed__same_weights() -> None:
    first, second, other = (load_language_model(replace(TINY, seed=seed)).backbone.wte.weight for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def run_bench(*arguments: object) -> int:
    sizes = ["--queries", 4, "--naive-queries", 2, "--repeats", 2, "--device", "cpu", "--backbone", "random:tiny"]
    return main(["bench", *map(str, [*arguments, *sizes])])


def test__bench__json__every_time_with_machine_and_versions(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_bench("stream", "stream-protocol", "stream", "--k", 4, "--json", tmp_path / "times.json") == 0
    found = json.loads((tmp_path / "times.json").read_text())
    assert found["machine"] == machine_facts()
    assert found["versions"] == version_facts()
    assert found["options"]["backbone"] == "random:tiny"
    assert [(pair["pair"], pair["k"], pair["queries"]) for pair in found["pairs"]] == [
        ("stream", None, 4),
        ("stream-protocol", 4, 4),
    ]
    out = capsys.readouterr().out
    for pair in found["pairs"]:
        times = Times(**pair["times"])
        assert len(times.naive) == len(times.scaled) == len(times.ours) == 2
        assert pair["ratio"] == pytest.approx(median(times.scaled) / median(times.ours))
        assert pair["dtype"] == "float32"
        fields = {name: value for name, value in pair.items() if name != "ratio"}
        assert format_row(PairResult(**{**fields, "times": times})) in out
    assert found["versions"]["transformers-tart"] in out
    assert list(tmp_path.iterdir()) == [tmp_path / "times.json"]


def test__bench__unknown_pair__exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run_bench("loo", "unknown")
    assert stop.value.code == 2
    assert 'no pair "unknown"' in capsys.readouterr().err


def test__bench__sides_disagree__exit_code_1_and_no_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = Pair("wrong", "made", 4, 4, build=lambda workload: compare(constant(0), constant(1)))
    monkeypatch.setitem(PAIRS, "wrong", wrong)
    assert run_bench("wrong") == 1
    captured = capsys.readouterr()
    assert "do not compute the same" in captured.err
    assert "wrong" not in captured.out


@pytest.mark.parametrize("options", [["loo", "--profile"], ["--repeats", 0], ["--memory", "--k", 1]])
def test__bench__options_that_make_no_sense__exit_code_1(options: list[object]) -> None:
    sizes = ["--device", "cpu", "--backbone", "random:tiny"]
    assert main(["bench", *map(str, [*sizes, *options])]) == 1


def test__profile__tiny_pipeline__every_part_is_met_and_nothing_stays_wrapped() -> None:
    before = [getattr(owner, name) for owner, name in PARTS.values()]
    clock = FakeClock()

    def ticking() -> float:
        clock.time += 1
        return clock.time

    classify = make_pipeline(replace(TINY, k=6), 1, 12)
    seconds = profile_pipeline(classify, make_texts(5), 2, ticking)
    assert list(seconds) == [*PARTS, REST]
    assert all(len(times) == 2 and min(times) > 0 for times in seconds.values())
    assert [getattr(owner, name) for owner, name in PARTS.values()] == before


def slowed(function: Callable, duration: float, clock: FakeClock) -> Callable:
    """The same function, which takes this time more."""

    def slow(*args: Any, **options: Any) -> Any:
        clock.time += duration
        return function(*args, **options)

    return slow


def test__profile__nested_parts__each_has_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    classify = make_pipeline(replace(TINY, k=6), 1, 12)
    for (owner, name), duration in zip(PARTS.values(), (1, 10, 100, 1000), strict=True):
        monkeypatch.setattr(owner, name, slowed(getattr(owner, name), duration, clock))
    seconds = profile_pipeline(classify, make_texts(3), 1, clock)
    assert {part: times[0] for part, times in seconds.items()} == dict(
        zip([*PARTS, REST], (1, 10, 100, 1000, 0), strict=True)
    )
    assert share_outside(seconds) == pytest.approx(1 - 10 / 1111)
    assert f"| {BACKBONE} | 10 | 0.9% |" in format_profile(seconds)


def test__bench__profile__table_and_json(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_bench("--profile", "--k", 4, "--json", tmp_path / "profile.json") == 0
    found = json.loads((tmp_path / "profile.json").read_text())["profile"]
    assert found["queries"] == 4
    assert format_profile(found["seconds"]) in capsys.readouterr().out


def test__bench__memory__a_process_for_each_number_of_texts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_here(command: list[str], **options: Any) -> subprocess.CompletedProcess:
        assert command[:3] == [sys.executable, "-m", "transformers_tart.bench.memory"]
        with contextlib.redirect_stdout(io.StringIO()) as out:
            memory.main(command[3:])
        return subprocess.CompletedProcess(command, 0, out.getvalue())

    monkeypatch.setattr(subprocess, "run", run_here)
    assert run_bench("--memory", "--memory-texts", 3, 9, "--k", 4, "--json", tmp_path / "memory.json") == 0
    found = json.loads((tmp_path / "memory.json").read_text())["memory"]
    peaks = [memory.Peak(**peak) for peak in found["peaks"]]
    assert [peak.texts for peak in peaks] == [3, 9]
    assert all(peak.megabytes > 10 and peak.dtype == "float32" for peak in peaks)
    assert memory.format_memory(peaks) in capsys.readouterr().out


def test__memory__process_fails__error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda command, **options: subprocess.CompletedProcess(command, 1, ""))
    with pytest.raises(ValueError, match="of 5 texts has failed"):
        memory.measure_memory(TINY)


def test__memory__two_peaks__difference_of_the_larger_number() -> None:
    lines = memory.format_memory([memory.Peak(100_000, "float32", 530.0), memory.Peak(1000, "float32", 500.0)])
    assert lines.endswith("100,000 texts take 30.0 MB more than 1,000")


def test__pipeline__as_profiled__answers_as_without() -> None:
    classify, texts = make_pipeline(replace(TINY, k=6), 1, 12), make_texts(4)
    before = classify(texts)
    profile_pipeline(classify, texts, 1)
    assert classify(texts) == before
