"""Estimates of what is left, shares of processes, and runs that fit into a time."""

import itertools
import time
from dataclasses import replace

import pytest
from helpers.results import DONE

from transformers_tart.evaluation.plan import Durations, Run, format_seconds, in_time, share
from transformers_tart.evaluation.records import Record
from transformers_tart.evaluation.tasks import Task


def make_task(name: str, rows: int = 84) -> Task:
    return Task(name, ("a", "b"), ["x", "y"], [0, 1], ["z"] * rows, [0] * rows)


def make_record(task: str = "sms", k: int = 16, method: str = "tart", seconds: float = 10.0, rows: int = 84) -> Record:
    return replace(DONE, task=task, k=k, method=method, seconds=seconds, test_rows=rows)


SMS, SST = make_task("sms"), make_task("sst", rows=184)


def test__estimate__before_any_has_finished__none() -> None:
    failed = replace(make_record(), metrics={}, calibration=[], error="no memory")
    assert Durations([failed]).estimate(Run(SMS, 16, 1, "tart")) is None
    assert Durations().total([Run(SMS, 16, 1, "tart")]) is None
    assert Durations().total([]) == 0


def test__estimate__finished_runs__those_nearest() -> None:
    run, others = Run(SMS, 16, 1, "tart"), [make_record(method="majority", seconds=1)]
    assert Durations(others).estimate(run) == 1
    others.append(make_record("sst", k=216, seconds=40, rows=184))  # its method: 0.1 s an input
    assert Durations(others).estimate(run) == pytest.approx(10)
    others.append(make_record("sst", seconds=40, rows=184))  # and its k: 0.2 s
    assert Durations(others).estimate(run) == pytest.approx(20)
    others += [make_record(seconds=30), make_record(seconds=34)]  # and its task
    assert Durations(others).estimate(run) == pytest.approx(32)


def test__estimate__seconds_of_shared_embeddings__not_spent_again() -> None:
    durations = Durations([replace(make_record(seconds=10), shared_seconds=9.5)])
    assert durations.estimate(Run(SMS, 16, 1, "tart")) == pytest.approx(0.5)


def test__share__equal_groups__each_whole_and_in_order() -> None:
    runs = [Run(SMS, k, seed, method) for k in (4, 8) for seed in range(4) for method in ("tart", "majority")]
    shares = share(runs, Durations(), 2)
    assert [len(own) for own in shares] == [8, 8]
    assert not {run.seed for run in shares[0]} & {run.seed for run in shares[1]}
    for own in shares:
        assert own == [run for run in runs if run in own]
    assert share(runs, Durations(), 1) == [runs]


@pytest.mark.parametrize("count", [2, 3, 7])
@pytest.mark.parametrize("seeds", [1, 3, 5])
def test__share__any__each_run_once(count: int, seeds: int) -> None:
    tasks, methods = (SMS, SST), ("tart", "fine_tuning")
    runs = [Run(*given) for given in itertools.product(tasks, (4, 64), range(seeds), methods)]
    durations = Durations([make_record(seconds=1), make_record(method="fine_tuning", seconds=50)])
    found = [run.key for own in share(runs, durations, count) for run in own]
    assert sorted(found) == sorted(run.key for run in runs)


def test__share__one_group__no_process_idle() -> None:
    runs = [Run(SMS, k, 1, "tart") for k in (16, 64, 256)]
    shares = share(runs, Durations(), 2)
    assert [[run.k for run in own] for own in shares] == [[256], [16, 64]]
    assert share(runs[:1], Durations(), 2) == [runs[:1], []]


def test__share__known_seconds__slow_task_alone() -> None:
    runs = [Run(task, 16, seed, "tart") for task in (SMS, SST) for seed in range(2)]
    slow = Run(make_task("imdb"), 16, 0, "tart")
    durations = Durations([make_record(), make_record("sst"), make_record("imdb", seconds=60)])
    assert share([*runs, slow], durations, 2) == [[slow], runs]


def test__in_time__no_limit__all_in_order_with_what_is_left() -> None:
    runs = [Run(SMS, 16, seed, "tart") for seed in range(3)]
    assert list(in_time(runs, Durations())) == [(run, None) for run in runs]
    assert list(in_time(runs, Durations([make_record()]))) == list(zip(runs, (30, 20, 10), strict=True))
    assert list(in_time([], Durations())) == []


def test__in_time__run_that_does_not_fit__passed_over() -> None:
    runs = [Run(SMS, 16, 0, "fine_tuning"), Run(SMS, 16, 0, "tart")]
    durations = Durations([make_record(seconds=20), make_record(method="fine_tuning", seconds=500)])
    assert [run for run, _ in in_time(runs, durations, time.perf_counter() + 100)] == runs[1:]


def test__in_time__nothing_fits__shortest_alone() -> None:
    runs = [Run(SMS, 16, seed, method) for seed in range(2) for method in ("fine_tuning", "tart")]
    durations = Durations([make_record(seconds=200), make_record(method="fine_tuning", seconds=500)])
    assert [run for run, _ in in_time(runs, durations, time.perf_counter() + 100)] == [runs[1]]


def test__in_time__limit_passed__no_other_run(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(step=10)
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    runs = [Run(SMS, 16, seed, "tart") for seed in range(9)]
    assert [run for run, _ in in_time(runs, Durations(), 25)] == runs[:3]  # before 0, 10 and 20 s


def test__format_seconds__any__two_or_three_digits() -> None:
    shown = [format_seconds(seconds) for seconds in (0.2, 89, 90, 720, 5399, 5400, 86400)]
    assert shown == ["0 s", "89 s", "2 min", "12 min", "90 min", "1.5 h", "24.0 h"]
