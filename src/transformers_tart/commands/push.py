"""`transformers-tart push`: push a reasoner, a composition or a fitted task to the Hub."""

import argparse
from typing import Any

from transformers_tart.commands.classes import FILES, VALUES, add_class_options, load_fitted
from transformers_tart.commands.common import LOADING, add_shared, load_config
from transformers_tart.commands.inputs import add_column_options
from transformers_tart.configuration_tart import TartReasonerConfig
from transformers_tart.hub.card import CardFacts
from transformers_tart.reasoners.modeling_reasoner import TartReasoner


SUMMARY = "Push a reasoner, a composition or a task fitted to examples to the Hub."
EXAMPLE = "--model EleutherAI/pythia-160m --examples train.csv --repo-id me/tart-spam --private"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_shared(parser, *LOADING)
    parser.add_argument("--examples", help="labeled examples of a task: csv, tsv, json, jsonl or parquet")
    add_column_options(parser)
    add_class_options(parser)
    parser.add_argument("--repo-id", required=True, help="id of the repository, for example me/tart-spam")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--create-pr", action="store_true", help="open a pull request instead of committing")
    parser.add_argument("--to-revision", help="branch to push to (default: main)")
    parser.add_argument("--commit-message", help="commit message")
    parser.add_argument("--dataset", action="append", help="Hub id of the examples, for the card; can be repeated")
    parser.add_argument("--language", action="append", help="language code for the card; can be repeated")
    parser.add_argument("--license", help="license for the card")


def run(args: argparse.Namespace) -> None:
    """Push, and print the URL of the commit."""
    facts = CardFacts(args.repo_id, args.dataset, args.language, args.license)
    options = {"private": args.private or None, "token": args.token, "create_pr": args.create_pr}
    options |= {"revision": args.to_revision, "commit_message": args.commit_message}
    config = load_config(args)
    if isinstance(config, TartReasonerConfig):
        for name in ("examples", *VALUES, *FILES):
            if vars(args)[name] is not None:
                option = f"--{name.replace('_', '-')}"
                raise ValueError(f"--model is a reasoner without backbone, so {option} cannot be used; leave it out.")
        hub = {"revision": args.revision or "main", "token": args.token}
        pushed: Any = TartReasoner.from_pretrained(args.model, config=config, **hub)
        pushed.card_facts = facts
    else:
        pushed = load_fitted(args, config)
        pushed.model.card_facts = facts
    print(pushed.push_to_hub(args.repo_id, **options))
