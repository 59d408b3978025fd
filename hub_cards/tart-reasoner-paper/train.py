"""Trains the paper's head on one accelerator, in pieces between which a few small files travel.

    python train.py --preset paper-66 --estimate
    python train.py --preset paper-66 --to piece1
    python train.py --preset paper-66 --from piece1 --to piece2

A piece stops after `--max-minutes`. Its folder holds at most 8 files of less than 16 MiB: the weights in half
precision and the state of the run, or the reasoner once training is over. The next piece continues with the tasks that
follow, from weights rounded by less than a step of the optimizer, whose averages begin anew. `--estimate` times a few
steps of every length of the curriculum instead, and prints what the whole run takes.
"""

import argparse
import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from accelerate.tracking import GeneralTracker
from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file, save_file

from transformers_tart import TartReasoner
from transformers_tart.bench.machine import describe, machine_facts, version_facts
from transformers_tart.evaluation.methods.baselines import logistic_regression
from transformers_tart.training.checkpoints import PREFIX, STATES_FILE, TRAINING_RECORD
from transformers_tart.training.presets import PRESETS, Preset, ReasonerTrainingArguments
from transformers_tart.training.sources import PaperTasks, TaskStream
from transformers_tart.training.trainer import Run, train_reasoner
from transformers_tart.training.validation import VALIDATION_SEED, Validation


SHARD = "15MB"
WEIGHTS, OPTIMIZER = "model.safetensors", "optimizer.bin"  # of accelerate's checkpoints
PRINTED_STEPS = 500


class Throughput(GeneralTracker):
    """Printed lines of loss and throughput."""

    name = "throughput"
    requires_logging_directory = False
    main_process_only = True

    def __init__(self, batch_size: int):
        super().__init__()
        self.batch_size, self.losses, self.begin = batch_size, list[float](), time.perf_counter()

    @property
    def tracker(self) -> None:
        """There is nothing behind it."""

    def store_init_configuration(self, values: dict) -> None:
        """Keep nothing: `training.json` holds the arguments."""

    def log(self, values: dict, step: int | None = None, **kwargs: object) -> None:
        """Count a step, and print a line now and then."""
        self.losses += [values["loss"]] if "loss" in values else []
        if len(self.losses) == PRINTED_STEPS:
            rate = len(self.losses) / (time.perf_counter() - self.begin)
            loss = sum(self.losses) / len(self.losses)
            speed = f"{rate:.2f} steps/s, {rate * self.batch_size:.0f} tasks/s"
            print(f"step {step}: loss {loss:.4f}, {speed}", flush=True)
            self.losses, self.begin = [], time.perf_counter()


def pack(run: Path, to: Path) -> None:
    """Write the checkpoint of a run as a piece: weights in half precision, and no averages of the optimizer."""
    (checkpoint,) = run.glob(PREFIX + "*")
    halves = {name: tensor.half() for name, tensor in load_file(checkpoint / WEIGHTS).items()}
    save_torch_state_dict(halves, to, max_shard_size=SHARD)
    optimizer = torch.load(checkpoint / OPTIMIZER, weights_only=True)
    torch.save({**optimizer, "state": {}}, to / OPTIMIZER)
    shutil.copy(checkpoint / STATES_FILE, to)
    shutil.copy(run / TRAINING_RECORD, to)


def unpack(piece: Path, run: Path) -> None:
    """Write a piece as the checkpoint of a run."""
    if not (piece / STATES_FILE).is_file():
        raise SystemExit(f"{piece} has no {STATES_FILE}: it is of a run that is over, or of none. Leave --from out.")
    step = json.loads((piece / STATES_FILE).read_text())["states"][0]["step"]
    checkpoint = run / f"{PREFIX}{step}"
    checkpoint.mkdir(parents=True)
    weights = {name: half.float() for file in piece.glob("*.safetensors") for name, half in load_file(file).items()}
    save_file(weights, checkpoint / WEIGHTS, {"format": "pt"})
    for name in (OPTIMIZER, STATES_FILE):
        shutil.copy(piece / name, checkpoint)


def save_finished(reasoner: TartReasoner, run: Path, to: Path) -> None:
    """Save a reasoner in half precision, with the record of its run."""
    reasoner.half().save_pretrained(to, max_shard_size=SHARD)  # type: ignore[arg-type]
    shutil.copy(run / TRAINING_RECORD, to)


def count_flops(reasoner: TartReasoner, length: int, batch_size: int) -> float:
    """Return the floating-point operations of a step: of each weight and token 6, and causal attention."""
    config, tokens = reasoner.config, 2 * length
    weights = sum(p.numel() for name, p in reasoner.named_parameters() if ".wpe" not in name and ".wte" not in name)
    attention = 6 * config.num_hidden_layers * config.hidden_size * tokens
    return batch_size * tokens * (6 * weights + attention)


def estimate(preset: Preset, tasks: PaperTasks, args: ReasonerTrainingArguments, timed: int) -> None:
    """Time steps of every length of the curriculum, and print the sum over the run."""
    run, minutes, flops = Run(preset.build_config(), args, tasks), 0.0, 0.0
    lengths = [tasks.points.at(step) for step in range(args.max_steps)]
    print("| examples | steps | tasks/s | ms a step | GFLOP a step | TFLOP/s |\n|---|---|---|---|---|---|")
    for length in sorted(set(lengths)):
        steps = lengths.count(length)
        stream = TaskStream(tasks, lengths.index(length), run.progress.random_state, run.draws_on)
        for _ in range(2):
            run.train_step(stream)
        begin = time.perf_counter()
        for _ in range(timed):
            run.train_step(stream)  # returns its loss to the CPU, so waits for the accelerator
        seconds = (time.perf_counter() - begin) / timed
        stream.close()
        step_flops = count_flops(run.reasoner, length, tasks.batch_size)
        minutes, flops = minutes + steps * seconds / 60, flops + steps * step_flops
        speeds = tasks.batch_size / seconds, 1e3 * seconds, step_flops / 1e9, step_flops / seconds / 1e12
        print(f"| {length} | {steps} | " + " | ".join(f"{value:.4g}" for value in speeds) + " |", flush=True)
    print(f"{args.max_steps} steps, {flops:.2e} FLOP: {minutes:.1f} minutes at this speed, without validation")


def train(args: argparse.Namespace, preset: Preset, tasks: PaperTasks, arguments: ReasonerTrainingArguments) -> None:
    """Train for a piece, and write its folder."""
    shutil.rmtree(args.work, ignore_errors=True)
    if args.source is not None:
        unpack(args.source, args.work)
    fixed = tasks.validation(torch.Generator().manual_seed(VALIDATION_SEED))
    reasoner = train_reasoner(
        preset.build_config(),
        args.work,
        arguments,
        tasks,
        validation=Validation(fixed, {"logistic_regression": logistic_regression}),
        resume=True,
        max_minutes=args.max_minutes,
        log_with=Throughput(tasks.batch_size),
        preset=args.preset,
    )
    shutil.rmtree(args.to, ignore_errors=True)
    args.to.mkdir(parents=True)
    last = json.loads((args.work / TRAINING_RECORD).read_text())["history"][-1]
    if last["step"] == arguments.max_steps:
        save_finished(reasoner, args.work, args.to)
    else:
        pack(args.work, args.to)
    print(f"{args.to}, after step {last['step']} of {arguments.max_steps}: {json.dumps(last)}")


def main(argv: Sequence[str] | None = None) -> None:
    """Train a piece, or estimate the whole."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    papers = [name for name, preset in PRESETS.items() if isinstance(preset.tasks, PaperTasks)]
    parser.add_argument("--preset", choices=papers, default="paper-66")
    parser.add_argument("--from", dest="source", type=Path, help="folder of the piece before")
    parser.add_argument("--to", type=Path, default=Path("piece"), help="folder of this piece, replaced")
    parser.add_argument("--work", type=Path, default=Path("run"), help="folder of the run, replaced")
    parser.add_argument("--max-minutes", type=float, default=8)
    parser.add_argument("--max-steps", type=int, help="(default: the preset's)")
    parser.add_argument("--batch-size", type=int, help="sequences of a step (default: the preset's)")
    parser.add_argument("--mixed-precision", choices=("no", "bf16"), default="bf16")
    parser.add_argument("--compile", action="store_true", help="compile the reasoner, anew for two lengths or so")
    parser.add_argument("--save-steps", type=int, default=2000, help="between two validations")
    parser.add_argument("--estimate", type=int, nargs="?", const=10, metavar="STEPS", help="timed at each length")
    args = parser.parse_args(argv)
    if args.compile:
        os.environ["ACCELERATE_DYNAMO_BACKEND"] = "INDUCTOR"
    print(describe(machine_facts(), version_facts()), flush=True)
    preset = PRESETS[args.preset]
    assert isinstance(preset.tasks, PaperTasks)
    arguments = replace(
        preset.arguments,
        max_steps=args.max_steps or preset.arguments.max_steps,
        save_steps=args.save_steps,
        mixed_precision=args.mixed_precision,
    )
    tasks = replace(preset.tasks, batch_size=args.batch_size or preset.tasks.batch_size)
    if args.estimate is not None:
        estimate(preset, tasks, arguments, args.estimate)
    else:
        train(args, preset, tasks, arguments)


if __name__ == "__main__":
    main()
