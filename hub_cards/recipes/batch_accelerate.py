"""Classify a dataset on all devices of one or several machines; each process writes a file of its own.

accelerate launch --num_machines 2 --num_processes 16 --machine_rank 0 --main_process_ip 10.0.0.1 \\
    --main_process_port 29500 batch_accelerate.py --task me/tart-sms-spam --input messages.csv --output labeled
"""

import argparse
from pathlib import Path

import torch
from accelerate import PartialState
from datasets import load_dataset
from transformers import pipeline

import transformers_tart  # noqa: F401 (registers the pipeline)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("--task", "--input", "--output"):
        parser.add_argument(name, required=True)
    args = parser.parse_args()
    state = PartialState(cpu=not torch.accelerator.is_available())
    with state.local_main_process_first():  # one process of each machine downloads
        classify = pipeline("tart-classification", model=args.task, device=state.device)
        rows = load_dataset("csv", data_files=args.input, split="train")
    own = rows.shard(state.num_processes, state.process_index, contiguous=True)
    answers = list(classify(own["text"], batch_size=64))
    for name in ("label", "score"):
        own = own.add_column(name, [each[name] for each in answers])
    Path(args.output).mkdir(parents=True, exist_ok=True)
    own.to_parquet(Path(args.output) / f"part-{state.process_index:05d}-of-{state.num_processes:05d}.parquet")
    state.wait_for_everyone()
    state.destroy_process_group()
