"""Profile of a pipeline: the time of each part, by the labels `tart/...` that its functions record."""

from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import Any

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, supported_activities
from torch.utils.benchmark import timer

from transformers_tart.bench.timing import Clock
from transformers_tart.pipeline_tart import TartClassificationPipeline


LABEL = "tart/"
BACKBONE, REST = "backbone", "rest"
TEXT_PARTS = ("tokenizing", BACKBONE, "pooling", "reasoner")
MEDIA_PARTS = ("image processor", BACKBONE, "pooling", "reasoner")


def profile_pipeline(
    classify: TartClassificationPipeline,
    inputs: Sequence[Any],
    repeats: int,
    clock: Clock = timer,
    progress: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """Return the seconds of each part of a classification with the stored support set, for each run.

    A first run is not counted. `progress` is called after each run.
    """
    runs, parts = [], TEXT_PARTS if classify.model.config.modality.is_tokenized else MEDIA_PARTS
    activities = {ProfilerActivity.CPU, ProfilerActivity.CUDA, ProfilerActivity.XPU} & supported_activities()
    for _ in range(repeats + 1):
        with profile(activities=activities) as profiler:
            start = clock()
            classify(inputs)
            total = clock() - start
        progress()
        seconds = own_times(profiler.events() or ())
        runs.append({**seconds, REST: max(0.0, total - sum(seconds.values()))})
    return {part: [run.get(part, 0.0) for run in runs[1:]] for part in (*parts, REST)}


def own_times(events: Iterable[Any]) -> dict[str, float]:
    """Return the seconds of each labeled part, without those of parts that run inside it.

    The time of a part on an accelerator is that of its kernels, or of their launches if these take longer.
    """
    seconds: dict[str, float] = {}
    for event in events:
        if not event.name.startswith(LABEL) or event.device_type != DeviceType.CPU:
            continue
        duration = max(event.cpu_time_total, event.device_time_total) * 1e-6
        parent = event.cpu_parent
        while parent is not None and not parent.name.startswith(LABEL):
            parent = parent.cpu_parent
        for name, sign in ((event.name, 1), *([] if parent is None else [(parent.name, -1)])):
            part = name.removeprefix(LABEL)
            seconds[part] = seconds.get(part, 0.0) + sign * duration
    return seconds


def share_outside(seconds: dict[str, list[float]]) -> float:
    """Return the share of time outside the backbone's forward pass, by the medians."""
    medians = {part: median(values) for part, values in seconds.items()}
    return 1 - medians[BACKBONE] / sum(medians.values())


def format_profile(seconds: dict[str, list[float]]) -> str:
    """Return a table of the seconds and share of each part, by the medians."""
    medians = {part: median(values) for part, values in seconds.items()}
    total = sum(medians.values())
    lines = ["| part | s | share |", "|---|---|---|"]
    lines += [f"| {part} | {value:.3g} | {value / total:.1%} |" for part, value in medians.items()]
    lines.append(f"| **all** | {total:.3g} | 100% |")
    return "\n".join(lines) + f"\n\noutside the backbone's forward pass: {share_outside(seconds):.1%}"


__all__ = ["MEDIA_PARTS", "TEXT_PARTS", "format_profile", "profile_pipeline", "share_outside"]
