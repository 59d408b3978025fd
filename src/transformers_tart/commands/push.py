"""`transformers-tart push`: push a reasoner, a composition or a fitted task to the Hub."""

import argparse
from typing import Any

from transformers_tart.commands.common import (
    add_model_options,
    add_subparser,
    load_config,
    load_pipeline,
    read_examples,
)


def add_parser(subparsers: Any) -> None:
    """Add the parser of the command."""
    parser = add_subparser(
        subparsers,
        "push",
        "Push a reasoner, a composition or a task fitted to examples to the Hub.",
        "transformers-tart push --model EleutherAI/pythia-160m --examples train.csv --repo-id me/tart-spam --private",
    )
    add_model_options(parser)
    parser.add_argument("--examples", help="labeled examples of a task: csv, tsv, json, jsonl or parquet")
    parser.add_argument("--repo-id", required=True, help="id of the repository, for example me/tart-spam")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--create-pr", action="store_true", help="open a pull request instead of committing")
    parser.add_argument("--to-revision", help="branch to push to (default: main)")
    parser.add_argument("--commit-message", help="commit message")
    parser.add_argument(
        "--dataset", action="append", help="Hub id of the data set of the examples, for the card; can be repeated"
    )
    parser.add_argument("--language", action="append", help="language code for the card; can be repeated")
    parser.add_argument("--license", help="license for the card")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Push, and print the URL of the commit."""
    from transformers_tart.configuration_tart import TartReasonerConfig
    from transformers_tart.hub.card import CardFacts
    from transformers_tart.reasoners.modeling_reasoner import TartReasoner

    facts = CardFacts(args.repo_id, args.dataset, args.language, args.license)
    options = {
        "private": args.private or None,
        "token": args.token,
        "create_pr": args.create_pr,
        "revision": args.to_revision,
        "commit_message": args.commit_message,
    }
    config = load_config(args)
    if isinstance(config, TartReasonerConfig):
        if args.examples is not None:
            raise ValueError("--model is a reasoner without backbone, so --examples cannot be used; leave them out.")
        reasoner = TartReasoner.from_pretrained(
            args.model, config=config, revision=args.revision or "main", token=args.token
        )
        reasoner.card_facts = facts
        print(reasoner.push_to_hub(args.repo_id, **options))
        return
    examples = None if args.examples is None else read_examples(args.examples)
    classify = load_pipeline(args, config, examples)
    classify.model.card_facts = facts
    print(classify.push_to_hub(args.repo_id, **options))


__all__ = ["add_parser", "run"]
