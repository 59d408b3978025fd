"""`transformers-tart bench`: times of this package and of the published procedure, measured in one run."""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import torch
from tqdm.auto import tqdm

from transformers_tart.bench import SUMMARIES
from transformers_tart.bench.machine import default_device, describe, dtype_name, machine_facts, version_facts
from transformers_tart.commands.common import add_shared, one_of
from transformers_tart.files import write_whole


if TYPE_CHECKING:
    from transformers_tart.bench.workload import Workload

PIPELINE_K, PIPELINE_QUERIES = 64, 500
PROFILE_LENGTHS = (1, 60)  # in words
MEMORY_INPUTS = (1_000, 100_000)
OPTIONS = ("naive_queries", "backbone", "max_characters", "words", "dtype", "compile", "seed")

SUMMARY = "Time this package and the published procedure in turn, profile the pipeline, or measure its peak memory."
EXAMPLE = "vanilla loo --backbone random:gpt2-small --json times.json"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    summaries = "; ".join(f"{name}: {summary}" for name, summary in SUMMARIES.items())
    parser.add_argument(
        "pairs", nargs="*", type=one_of("bench.pairs", "PAIRS"), metavar="PAIR", help=f"(default: all) {summaries}"
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--profile", action="store_true", help="instead: split the pipeline's time into parts")
    instead.add_argument("--memory", action="store_true", help="instead: peak memory of few and of many inputs")
    parser.add_argument("--repeats", type=int, default=3, help="counted runs of each side (default: 3)")
    parser.add_argument("--naive-queries", type=int, default=20, help="of the naive side; 0: all (default: 20)")
    parser.add_argument("--k", type=int, help="size of the support set (default: the pair's; for the pipeline 64)")
    parser.add_argument("--queries", type=int, help="number of queries (default: the pair's; for --profile 500)")
    parser.add_argument(
        "--memory-inputs", type=int, nargs=2, default=MEMORY_INPUTS, metavar=("A", "B"), help="(default: 1000 100000)"
    )
    parser.add_argument(
        "--backbone",
        default="mini",
        help="mini, a folder, a Hub id or random:gpt2-small; for --profile and --memory also the image models "
        "random:vit-tiny and random:vit-base (default: mini)",
    )
    parser.add_argument("--max-characters", type=int, default=100, help="of a prompt's texts (default: 100)")
    parser.add_argument(
        "--words",
        type=int,
        nargs=2,
        default=(1, 120),
        metavar=("A", "B"),
        help="fewest and most words of a text of stream and views (default: 1 120)",
    )
    add_shared(parser, "--dtype", help="precision of the backbone; auto is that of its weights (default: auto)")
    add_shared(parser, "--device", "--json")
    parser.add_argument("--compile", action="store_true", help="compile the backbone of our side")
    parser.add_argument("--seed", type=int, default=0, help="seed of texts, embeddings and weights (default: 0)")


def run(args: argparse.Namespace) -> None:
    """Measure, and print and write the results."""
    if args.repeats < 1:
        raise ValueError(f"--repeats is {args.repeats}; it must be at least 1.")
    if args.pairs and (args.profile or args.memory):
        raise ValueError(f"--profile and --memory are instead of pairs; leave out {', '.join(args.pairs)}.")
    machine, versions = machine_facts(), version_facts()
    print(describe(machine, versions) + "\n", flush=True)
    facts = {"machine": machine, "versions": versions, "options": {name: vars(args)[name] for name in OPTIONS}}
    measure = run_profile if args.profile else run_memory if args.memory else run_pairs
    for found in measure(args):
        if args.json is not None:
            write_whole(args.json, json.dumps({**facts, **found}, indent=1) + "\n")


def run_pairs(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Time pairs, and print a line of the table for each; yield all results after each."""
    from transformers_tart.bench.pairs import PAIRS
    from transformers_tart.bench.timing import format_heading, format_row, measure, pair_result

    pairs = [PAIRS[name] for name in dict.fromkeys(args.pairs or PAIRS)]
    found: list[dict[str, Any]] = []
    print(format_heading(args.repeats), flush=True)
    with tqdm(desc="timing", unit="run", total=2 * (args.repeats + 1) * len(pairs)) as bar:
        for pair in pairs:
            workload = make_workload(args, pair.k or 2, pair.queries)
            comparison = pair.build(workload)
            times = measure(comparison, args.repeats, progress=bar.update)
            found.append(pair_result(pair, workload, comparison, times))
            with bar.external_write_mode():
                print(format_row(found[-1]), flush=True)
            yield {"pairs": found}


def run_profile(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Split the time of the pipeline into parts."""
    from transformers_tart.bench.profile import format_profile, profile_pipeline, share_outside
    from transformers_tart.bench.workload import make_pipeline, stream_queries

    workload = make_workload(args, PIPELINE_K, PIPELINE_QUERIES)
    classify = make_pipeline(workload, *PROFILE_LENGTHS)
    dtype = dtype_name(classify.model.backbone.dtype)
    inputs = list(stream_queries(workload, *PROFILE_LENGTHS))
    with tqdm(desc="timing", unit="run", total=args.repeats + 1) as bar:
        seconds = profile_pipeline(classify, inputs, args.repeats, progress=bar.update)
    print(f"{describe_pipeline(workload, dtype)}, {len(inputs)} inputs, medians of {args.repeats} runs\n")
    print(format_profile(seconds))
    found = {"dtype": dtype, "device": str(workload.device), "k": workload.k, "queries": len(inputs)}
    yield {"profile": {**found, "seconds": seconds, "outside_backbone": share_outside(seconds)}}


def run_memory(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Measure the peak memory of two processes."""
    from transformers_tart.bench.profile import format_memory, measure_memory

    workloads = [replace(make_workload(args, PIPELINE_K, 1), queries=count) for count in args.memory_inputs]
    peaks = [measure_memory(workload) for workload in tqdm(workloads, desc="classifying", unit="process")]
    first = workloads[0]
    print(f"{describe_pipeline(first, peaks[0].dtype)}, each number of inputs in a process of its own\n")
    print(format_memory(peaks))
    yield {"memory": {"device": str(first.device), "k": first.k, "peaks": [asdict(peak) for peak in peaks]}}


def make_workload(args: argparse.Namespace, k: int, queries: int) -> "Workload":
    """Build the workload of the options, with these sizes by default."""
    from transformers_tart.bench.workload import Workload

    return Workload(
        k=k if args.k is None else args.k,
        queries=queries if args.queries is None else args.queries,
        device=default_device() if args.device is None else torch.device(args.device),
        **{name: vars(args)[name] for name in OPTIONS},
    )


def describe_pipeline(workload: "Workload", dtype: str) -> str:
    """Describe the pipeline of a workload in a line."""
    return f"pipeline on {workload.model}, {dtype}, {workload.device}, k = {workload.k}"
