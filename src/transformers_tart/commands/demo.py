"""`transformers-tart demo`: spam or not, from forty labelled messages, without network or training."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPTNeoXConfig, GPTNeoXModel, PreTrainedTokenizerFast

from transformers_tart.commands.common import add_model_options, add_subparser, load_pipeline
from transformers_tart.modeling_tart import TartForSequenceClassification
from transformers_tart.pipeline_tart import TartClassificationPipeline


MESSAGES = Path(__file__).with_name("demo_messages.json")
SHOWN = 8


def add_parser(subparsers: Any) -> None:
    """Declare the command."""
    parser = add_subparser(
        subparsers,
        "demo",
        "Tell spam from other messages, offline, with what the package contains.",
        "transformers-tart demo --model EleutherAI/pythia-160m",
    )
    add_model_options(parser, required=False)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Classify the messages and print a short result."""
    rows = json.loads(MESSAGES.read_text())
    examples = [{"text": row["text"], "label": row["label"]} for row in rows if row["split"] == "examples"]
    queries = [row for row in rows if row["split"] == "queries"]
    if args.model is None:
        classify = untrained_pipeline([row["text"] for row in examples])
        backbone = "a small language model with random weights, built just now; --model takes a trained one"
    else:
        classify, backbone = load_pipeline(args), args.model
    answers = classify([row["text"] for row in queries], examples=examples)
    print(f"backbone   {backbone}")
    print(f"examples   {len(examples)} messages labelled spam or ham; nothing is trained on them\n")
    for row, answer in list(zip(queries, answers, strict=True))[:SHOWN]:
        mark = " " if answer["label"] == row["label"] else "  <- wrong"
        print(f"  {answer['label']:4}  {answer['score']:4.0%}  {row['text'][:70]}{mark}".rstrip())
    right = sum(answer["label"] == row["label"] for row, answer in zip(queries, answers, strict=True))
    print(f"\naccuracy   {right} of {len(queries)} new messages ({right / len(queries):.0%}; guessing gives 50%)")


def untrained_pipeline(texts: Sequence[str], seed: int = 0) -> TartClassificationPipeline:
    """A pipeline on a random GPT-NeoX, with a byte-level tokenizer made from the texts.

    Args:
        texts (`list[str]`):
            Texts whose frequent byte sequences become tokens.
        seed (`int`, *optional*, defaults to 0):
            Seed of the weights.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1024, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token="<|endoftext|>")
    config = GPTNeoXConfig(
        vocab_size=len(fast),
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=512,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = GPTNeoXModel(config)
    return TartClassificationPipeline(
        model=TartForSequenceClassification.from_backbone(backbone), tokenizer=fast, device="cpu"
    )


__all__ = ["add_parser", "run", "untrained_pipeline"]
