"""Trains the language model that the package carries, from a folder of text shards.

    accelerate launch train.py --corpus FOLDER --output FOLDER --size gpu --exclude imdb-unsup

Run the same command again after an interruption: it goes on from the last checkpoint, to the same weights. Needs torch
2.9 or newer, for its Muon.
"""

import argparse
import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import TorchDynamoPlugin, set_seed
from bits_per_byte import bits_per_byte
from corpus import pack, read_documents, read_held_out, train_tokenizer
from datasets import Dataset
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast, get_cosine_schedule_with_warmup

from transformers_tart.training.checkpoints import load_checkpoint, save_checkpoint


@dataclass(frozen=True)
class Size:
    """A model and how long it is trained.

    Rows of `short_length` tokens cost less attention; only the last part of the steps reads rows of `context` tokens.
    """

    hidden_size: int
    num_layers: int
    num_heads: int
    context: int
    rows_per_step: int
    steps: int
    learning_rate: float
    short_length: int
    short_part: float
    vocabulary_size: int = 8192
    warmup_part: float = 0.03
    weight_decay: float = 0.1


SIZES = {
    "cpu": Size(256, 4, 4, 1024, 8, 4200, 4e-3, short_length=256, short_part=0.85),
    "gpu": Size(384, 6, 6, 1024, 64, 4000, 3e-3, short_length=1024, short_part=0.0),
    "tiny": Size(32, 2, 2, 64, 8, 40, 4e-3, short_length=32, short_part=0.5, vocabulary_size=512),
}


class NextTokenLoss(nn.Module):
    """A language model that answers with its loss alone, so that compiled it never writes the logits out."""

    def __init__(self, model: GPTNeoXForCausalLM):
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        """Mean cross-entropy in nats of tokens (rows, length), each row's first one left out."""
        logits = self.model(input_ids=input_ids, use_cache=False).logits[:, :-1]
        return nn.functional.cross_entropy(logits.flatten(0, 1).float(), input_ids[:, 1:].flatten())


def build_model(size: Size, tokenizer: PreTrainedTokenizerFast) -> GPTNeoXForCausalLM:
    """Pythia's architecture, with input and output embeddings tied."""
    config = GPTNeoXConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.hidden_size,
        num_hidden_layers=size.num_layers,
        num_attention_heads=size.num_heads,
        intermediate_size=4 * size.hidden_size,
        max_position_embeddings=size.context,
        tie_word_embeddings=True,
        use_parallel_residual=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return GPTNeoXForCausalLM(config)


def build_optimizers(model: GPTNeoXForCausalLM, size: Size) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for embeddings, biases and norms."""
    matrices = [p for p in model.gpt_neox.layers.parameters() if p.dim() == 2]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    options = {"lr": size.learning_rate, "weight_decay": size.weight_decay}
    # with updates of AdamW's size, one learning rate serves both
    muon = torch.optim.Muon(matrices, adjust_lr_fn="match_rms_adamw", **options)
    return [muon, torch.optim.AdamW(others, betas=(0.9, 0.95), **{**options, "weight_decay": 0.0})]


def draw_rows(rows: Dataset, size: Size, step: int, seed: int) -> Tensor:
    """The tokens (rows, length) of a step: each epoch in an order of its own, a function of seed and step alone."""
    steps_per_epoch = len(rows) // size.rows_per_step
    if steps_per_epoch == 0:
        raise ValueError(
            f"The corpus gives {len(rows)} rows of {size.context} tokens, a step needs {size.rows_per_step}."
        )
    epoch, place = divmod(step, steps_per_epoch)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1_000_003 * seed + epoch))
    chosen = order[place * size.rows_per_step : (place + 1) * size.rows_per_step]
    length = size.short_length if step < size.short_part * size.steps else size.context
    return rows[chosen.tolist()]["input_ids"].reshape(-1, length)


class Run:
    """One training run: what is prepared, where it is saved, and where it is."""

    def __init__(self, accelerator: Accelerator, model: GPTNeoXForCausalLM, size: Size, output: Path):
        self.accelerator, self.size, self.output, self.step = accelerator, size, output, 0
        optimizers = build_optimizers(model, size)
        warmup = math.ceil(size.warmup_part * size.steps)
        self.schedulers = [get_cosine_schedule_with_warmup(o, warmup, size.steps) for o in optimizers]
        self.loss, *self.optimizers = accelerator.prepare(NextTokenLoss(model), *optimizers)
        self.log = output / "log.jsonl"

    @property
    def model(self) -> GPTNeoXForCausalLM:
        """The bare model."""
        return self.accelerator.unwrap_model(self.loss, keep_torch_compile=False).model

    def train_step(self, tokens: Tensor) -> Tensor:
        """One step on tokens (rows, length), shared by the processes; returns its loss over all of them."""
        part = tokens[self.accelerator.process_index :: self.accelerator.num_processes]
        loss = self.loss(part.to(self.accelerator.device))
        mean_loss = self.accelerator.reduce(loss.detach(), "mean")
        if not torch.isfinite(mean_loss):
            raise FloatingPointError(f"The loss is {mean_loss.item()} at step {self.step}: lower the learning rate.")
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.loss.parameters(), 1.0)
        for stepped in (*self.optimizers, *self.schedulers):
            stepped.step()
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        self.step += 1
        return mean_loss

    def save(self) -> None:
        """Write a checkpoint in place of the last one."""
        save_checkpoint(self.accelerator, self.output, self.step, *self.schedulers)

    def resume(self) -> None:
        """Go on from the last checkpoint, if there is one."""
        self.step = load_checkpoint(self.accelerator, self.output, *self.schedulers)

    def note(self, **facts: float) -> None:
        """Add a line to the log; called by the main process."""
        with self.log.open("a") as file:
            file.write(json.dumps({"step": self.step, **facts}) + "\n")


def check_arguments(args: argparse.Namespace, size: Size, num_processes: int) -> None:
    """Raise a ValueError when a folder holds a run of other arguments, or the sizes do not fit."""
    if size.rows_per_step % num_processes:
        raise ValueError(f"{size.rows_per_step} rows a step cannot be shared by {num_processes} processes.")
    if args.save_steps < 1:
        raise ValueError(f"--save-steps is {args.save_steps}; it must be at least 1.")
    shards = sorted(path.name for path in args.corpus.glob("*.jsonl.xz"))
    facts = {"size": args.size, "exclude": sorted(args.exclude), "seed": args.seed, "shards": shards}
    record = args.output / "run.json"
    if record.exists():
        before = json.loads(record.read_text())
        changed = [name for name in facts if before[name] != facts[name]]
        if changed:
            raise ValueError(f"{args.output} holds a run with other {changed}; repeat them or choose a new folder.")
    else:
        args.output.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps(facts) + "\n")


def load_tokenizer(documents: Dataset, size: Size, folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a run, trained when it is not there yet."""
    if not folder.exists():
        partial = folder.with_suffix(".partial")
        train_tokenizer(documents, size.vocabulary_size, size.context).save_pretrained(partial)
        partial.rename(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


def train(
    run: Run, rows: Dataset, held_out: Dataset, tokenizer: PreTrainedTokenizerFast, args: argparse.Namespace
) -> None:
    """Train to the last step, or to `args.stop_at`."""
    bar = tqdm(initial=run.step, total=run.size.steps, disable=not run.accelerator.is_local_main_process)
    stop = run.size.steps if args.stop_at is None else min(run.size.steps, args.stop_at)
    average = None
    while run.step < stop:
        loss = run.train_step(draw_rows(rows, run.size, run.step, args.seed)).item()
        average = loss if average is None else 0.98 * average + 0.02 * loss
        bar.update()
        bar.set_postfix(loss=f"{average:.3f}")
        if run.step % args.save_steps == 0 or run.step == stop:
            run.save()
            if run.accelerator.is_main_process:
                texts = held_out["text"][: args.held_out_documents]
                run.note(loss=average, bits_per_byte=bits_per_byte(run.model, tokenizer, texts))
    bar.close()


def save_half(model: GPTNeoXForCausalLM, tokenizer_folder: Path, folder: Path) -> None:
    """Save in half precision; the config asks for float32, in which the model then runs everywhere."""
    model.to(torch.float16).save_pretrained(folder)
    shutil.copytree(tokenizer_folder, folder, dirs_exist_ok=True)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "dtype": "float32"}, indent=2) + "\n")
    (folder / "model.safetensors").chmod(0o644)  # written for its owner's eyes only


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read a command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="folder of shards <name>.jsonl.xz")
    parser.add_argument("--output", type=Path, required=True, help="folder for checkpoints, log and result")
    parser.add_argument("--size", choices=SIZES, default="cpu")
    parser.add_argument("--exclude", nargs="*", default=[], help="sources to leave out")
    parser.add_argument("--mixed-precision", choices=("no", "bf16"), help="bf16 on accelerators, else no")
    parser.add_argument("--compile", action="store_true", help="compile the model; needs a C++ compiler on CPUs")
    parser.add_argument("--save-steps", type=int, default=500, help="steps between two checkpoints")
    parser.add_argument("--stop-at", type=int, help="stop after this step, to go on later")
    parser.add_argument("--held-out-documents", type=int, default=200, help="documents measured as training goes")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Tokenizer, rows, training, result."""
    args = parse_arguments(argv)
    size = SIZES[args.size]
    has_accelerator = torch.accelerator.is_available()
    precision = args.mixed_precision or ("bf16" if has_accelerator else "no")
    dynamo = TorchDynamoPlugin(backend="inductor" if args.compile else "no", dynamic=False)
    # without being told, accelerate does not join processes that have no accelerator
    accelerator = Accelerator(cpu=not has_accelerator, mixed_precision=precision, dynamo_plugin=dynamo)
    tokenizer_folder = args.output / "tokenizer"
    with accelerator.main_process_first():
        check_arguments(args, size, accelerator.num_processes)
        documents = read_documents(args.corpus, args.exclude)
        tokenizer = load_tokenizer(documents, size, tokenizer_folder)
        rows = pack(documents, tokenizer, size.context)
        held_out = read_held_out(args.corpus)
    set_seed(args.seed)
    run = Run(accelerator, build_model(size, tokenizer), size, args.output)
    run.resume()
    if accelerator.is_main_process:
        run.note(rows=len(rows), parameters=run.model.num_parameters(), **asdict(size))
    train(run, rows, held_out, tokenizer, args)
    if run.step == size.steps and accelerator.is_main_process:
        save_half(run.model, tokenizer_folder, args.output / "model")
    accelerator.end_training()


if __name__ == "__main__":
    main()
