"""Peak memory of classifying a stream of inputs, measured in a process of its own."""

import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context

from transformers.utils import logging

from transformers_tart.bench.machine import dtype_name
from transformers_tart.bench.workload import Workload, make_pipeline, stream_queries


LENGTHS = (2, 8)  # in words


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
