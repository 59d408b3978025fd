"""The `bench` command, where the time of the pipeline goes, and its memory."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import pytest
from helpers.benchmarks import TINY, _tiny_model, compare, constant  # noqa: F401 - the fixture is used by name
from helpers.builders import make_texts
from torch.autograd import DeviceType
from transformers import ViTConfig

from transformers_tart.bench import profile as memory
from transformers_tart.bench.machine import machine_facts, version_facts
from transformers_tart.bench.pairs import PAIRS
from transformers_tart.bench.profile import (
    BACKBONE,
    MEDIA_PARTS,
    REST,
    TEXT_PARTS,
    format_profile,
    own_times,
    profile_pipeline,
    share_outside,
)
from transformers_tart.bench.timing import Pair, Times, format_row
from transformers_tart.bench.workload import RANDOM_VISION, Workload, make_pipeline, stream_queries
from transformers_tart.cli import main


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
        assert format_row(pair) in out
    assert found["versions"]["transformers-tart"] in out
    assert list(tmp_path.iterdir()) == [tmp_path / "times.json"]


def test__bench__unknown_pair__exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run_bench("loo", "unknown")
    assert stop.value.code == 2
    assert "no 'unknown'" in capsys.readouterr().err


def test__bench__sides_disagree__exit_code_1_and_no_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = Pair("wrong", 4, 4, build=lambda workload: compare(constant(0), constant(1)))
    monkeypatch.setitem(PAIRS, "wrong", wrong)
    assert run_bench("wrong") == 1
    captured = capsys.readouterr()
    assert "do not compute the same" in captured.err
    assert "wrong" not in captured.out


@pytest.mark.parametrize("options", [["loo", "--profile"], ["--repeats", 0], ["--memory", "--k", 1]])
def test__bench__options_that_make_no_sense__exit_code_1(options: list[object]) -> None:
    sizes = ["--device", "cpu", "--backbone", "random:tiny"]
    assert main(["bench", *map(str, [*sizes, *options])]) == 1


def test__profile__tiny_pipeline__every_part_is_met() -> None:
    classify, started = make_pipeline(replace(TINY, k=6), 1, 12), time.perf_counter()
    seconds = profile_pipeline(classify, make_texts(5), 2)
    assert list(seconds) == [*TEXT_PARTS, REST]
    assert all(len(times) == 2 and min(times) > 0 for times in seconds.values())
    assert sum(map(sum, seconds.values())) < time.perf_counter() - started


def test__profile__pipeline_of_images__every_part_is_met(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    monkeypatch.setitem(RANDOM_VISION, "tiny-vit", lambda: tiny)
    workload = replace(TINY, k=6, queries=3, backbone="random:tiny-vit")
    seconds = profile_pipeline(make_pipeline(workload, 1, 2), list(stream_queries(workload, 1, 2)), 1)
    assert list(seconds) == [*MEDIA_PARTS, REST]
    assert all(min(times) > 0 for times in seconds.values())


@dataclass
class Event:
    """An event of a profile, in microseconds."""

    name: str
    cpu_time_total: float
    cpu_parent: "Event | None" = None
    device_time_total: float = 0.0
    device_type: DeviceType = DeviceType.CPU


def test__own_times__nested_parts__each_has_its_own_time() -> None:
    outer = Event("tart/pooling", 110e6)
    between = Event("aten::linear", 50e6, outer)
    inner = Event("tart/backbone", 10e6, between)
    others = [Event("tart/tokenizing", 1e6), Event("tart/reasoner", 400e6), Event("tart/reasoner", 600e6)]
    seconds = own_times([outer, between, inner, *others])
    assert seconds == pytest.approx({"pooling": 100, "backbone": 10, "tokenizing": 1, "reasoner": 1000})
    shares = {part: [time] for part, time in seconds.items()}
    assert share_outside(shares) == pytest.approx(1 - 10 / 1111)
    assert f"| {BACKBONE} | 10 | 0.9% |" in format_profile(shares)


def test__own_times__part_on_an_accelerator__time_of_its_kernels() -> None:
    outer = Event("tart/pooling", 3e6, device_time_total=11e6)
    inner = Event("tart/backbone", 2e6, outer, device_time_total=10e6)
    on_device = Event("tart/backbone", 0, device_time_total=10e6, device_type=DeviceType.CUDA)
    assert own_times([outer, inner, on_device]) == pytest.approx({"pooling": 1, "backbone": 10})


@pytest.mark.slow
def test__bench__profile__table_and_json(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_bench("--profile", "--k", 4, "--json", tmp_path / "profile.json") == 0
    found = json.loads((tmp_path / "profile.json").read_text())["profile"]
    assert found["queries"] == 4
    assert format_profile(found["seconds"]) in capsys.readouterr().out


def test__bench__memory__a_process_for_each_number_of_texts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(memory, "ProcessPoolExecutor", lambda *_: ThreadPoolExecutor(1))
    assert run_bench("--memory", "--memory-inputs", 3, 9, "--k", 4, "--json", tmp_path / "memory.json") == 0
    found = json.loads((tmp_path / "memory.json").read_text())["memory"]
    peaks = [memory.Peak(**peak) for peak in found["peaks"]]
    assert [peak.inputs for peak in peaks] == [3, 9]
    assert all(peak.megabytes > 10 and peak.dtype == "float32" for peak in peaks)
    assert memory.format_memory(peaks) in capsys.readouterr().out


def test__memory__process_fails__error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(workload: Workload) -> None:
        raise BrokenProcessPool("killed")

    monkeypatch.setattr(memory, "ProcessPoolExecutor", lambda *_: ThreadPoolExecutor(1))
    monkeypatch.setattr(memory, "classify_stream", fail)
    with pytest.raises(ValueError, match="of 5 inputs has failed"):
        memory.measure_memory(TINY)


def test__memory__two_peaks__difference_of_the_larger_number() -> None:
    lines = memory.format_memory([memory.Peak(100_000, "float32", 530.0), memory.Peak(1000, "float32", 500.0)])
    assert lines.endswith("100,000 inputs take 30.0 MB more than 1,000")


def test__pipeline__as_profiled__answers_as_without() -> None:
    classify, texts = make_pipeline(replace(TINY, k=6), 1, 12), make_texts(4)
    before = classify(texts)
    profile_pipeline(classify, texts, 1)
    assert classify(texts) == before
