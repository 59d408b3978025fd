"""Profile of a pipeline, by the labels `tart/...` that its functions record, and its peak memory in a new process."""

import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from statistics import median
from typing import Any

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, supported_activities
from torch.utils.benchmark import timer
from transformers.utils import logging

from transformers_tart.bench.machine import dtype_name
from transformers_tart.bench.timing import Clock
from transformers_tart.bench.workload import Workload, make_pipeline, stream_queries
from transformers_tart.pipeline_tart import TartClassificationPipeline


LABEL = "tart/"
BACKBONE, REST = "backbone", "rest"
TEXT_PARTS = ("tokenizing", BACKBONE, "pooling", "reasoner")
MEDIA_PARTS = ("image processor", BACKBONE, "pooling", "reasoner")
LENGTHS = (2, 8)  # in words


def profile_pipeline(
    classify: TartClassificationPipeline,
    inputs: Sequence[Any],
    repeats: int,
    clock: Clock = timer,
    progress: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """Return the seconds of each part of a classification in each run, without those of a first run."""
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
    return 1 - median(seconds[BACKBONE]) / sum(map(median, seconds.values()))


def format_profile(seconds: dict[str, list[float]]) -> str:
    """Return a table of the seconds and share of each part, by the medians."""
    medians = {part: median(values) for part, values in seconds.items()}
    total = sum(medians.values())
    lines = ["| part | s | share |", "|---|---|---|"]
    lines += [f"| {part} | {value:.3g} | {value / total:.1%} |" for part, value in medians.items()]
    lines.append(f"| **all** | {total:.3g} | 100% |")
    return "\n".join(lines) + f"\n\noutside the backbone's forward pass: {share_outside(seconds):.1%}"


@dataclass(frozen=True)
class Peak:
    """Peak resident memory of a process that classified a number of inputs."""

    inputs: int
    dtype: str
    megabytes: float


def classify_stream(workload: Workload) -> Peak:
    """Classify the queries of a workload one after the other in this process, and return its peak memory."""
    try:
        import resource
    except ImportError as err:
        raise OSError("Peak memory is read with getrusage, which this system does not have.") from err
    classify = make_pipeline(workload, *LENGTHS)
    count = sum(1 for _ in classify(stream_queries(workload, *LENGTHS)))
    unit = 1 if sys.platform == "darwin" else 1024  # bytes per unit of ru_maxrss
    dtype = dtype_name(classify.model.backbone.dtype)
    return Peak(count, dtype, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6)


def measure_memory(workload: Workload) -> Peak:
    """Run [`classify_stream`] in a new process, whose messages are on stderr."""
    try:
        with ProcessPoolExecutor(1, get_context("spawn"), logging.disable_progress_bar) as pool:
            return pool.submit(classify_stream, workload).result()
    except BrokenProcessPool as err:
        raise ValueError(f"The process of {workload.queries} inputs has failed; its messages are above.") from err


def format_memory(peaks: Sequence[Peak]) -> str:
    """Return a table of peaks, and the difference between the most and the fewest inputs."""
    lines = [f"| {'inputs':>9} | peak, MB |", "|---|---|"]
    lines += [f"| {peak.inputs:>9,} | {peak.megabytes:.1f} |" for peak in peaks]
    least, most = min(peaks, key=lambda peak: peak.inputs), max(peaks, key=lambda peak: peak.inputs)
    difference = most.megabytes - least.megabytes
    return "\n".join(lines) + f"\n\n{most.inputs:,} inputs take {difference:.1f} MB more than {least.inputs:,}"
