"""Options that describe the classes: candidate labels, label hints, and what they are made of."""

import argparse
import json
from pathlib import Path
from typing import Any

from transformers_tart.answers.limits import OPTIONS, limit_options
from transformers_tart.checks.arguments import as_share
from transformers_tart.commands.common import load_pipeline, modality_of
from transformers_tart.commands.inputs import InputTable, check_examples, column_arguments
from transformers_tart.embeddings.text import Unreadable
from transformers_tart.inputs.modality import Modality
from transformers_tart.inputs.tables import file_format, read_columns, read_rows
from transformers_tart.pipeline_tart import TartClassificationPipeline


VALUES = ("candidate_labels", "hypothesis_template", "hints")  # which are no files
FILES = ("label_descriptions", "unlabeled")
NO_HINTS = "none"
COLUMNS = ("label", "description")


def add_limit_options(parser: argparse.ArgumentParser) -> None:
    """Add the options to the parser of a command."""
    group = parser.add_argument_group("answers that are withheld, and label sets")
    group.add_argument(
        "--abstain-below", type=_share, metavar="P", help="leave the label empty where its probability is below P"
    )
    group.add_argument(
        "--out-of-scope",
        action="store_true",
        default=None,
        help="write how far each input is out of scope: the share of the examples that are closer to the others than "
        "it is to all of them, from 0 to 1",
    )
    group.add_argument(
        "--reject-above", type=_share, metavar="SHARE", help="leave the label empty where out_of_scope is above SHARE"
    )
    group.add_argument(
        "--coverage",
        type=_share,
        metavar="SHARE",
        help="write the labels that cannot be excluded too, as lists named labels and scores, which hold the true "
        "label in about this share of inputs like the examples, such as 0.9",
    )


def _share(given: str) -> float:
    try:
        return as_share(float(given), "it")
    except ValueError as err:
        raise argparse.ArgumentTypeError(f"{given!r} is no number from 0 to 1") from err


def limit_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options as arguments of the pipeline, as far as they are given, checked before a model is loaded."""
    given = {name: getattr(args, name) for name in OPTIONS if getattr(args, name) is not None}
    names = {name: f"--{name.replace('_', '-')}" for name in given}
    if "coverage" in given and args.top_k is not None:
        raise ValueError("--coverage and --top-k both set which labels are listed; give one of them.")
    needy = sorted(set(given) - {"abstain_below"})
    if needy and args.examples is None and args.candidate_labels is not None:
        raise ValueError(f"{names[needy[0]]} compares inputs with examples; give --examples, or leave it out.")
    return limit_options(given)


def add_class_options(parser: argparse.ArgumentParser) -> None:
    """Add the options to the parser of a command."""
    parser.add_argument(
        "--candidate-labels",
        metavar="LABELS",
        help="names of the classes between commas, such as spam,ham; without --examples they are all that is known, "
        "with them they set the order, and a class may be without an example",
    )
    parser.add_argument(
        "--label-descriptions",
        metavar="FILE",
        help="texts that describe the classes: json of an object of labels and texts, or a table with the columns "
        "label and description",
    )
    parser.add_argument(
        "--hypothesis-template",
        metavar="TEMPLATE",
        help='text around the name of a class, such as "This message is {}." (default: that of the label hint)',
    )
    parser.add_argument(
        "--unlabeled", metavar="FILE", help="table of inputs without labels, which calibrate the hints"
    )
    hints = parser.add_mutually_exclusive_group()
    hints.add_argument(
        "--hints",
        metavar="NAMES",
        help="label hints between commas, label_similarity or label_likelihood, or auto for those that the model can "
        "give (default: auto)",
    )
    hints.add_argument(
        "--no-hints", dest="hints", action="store_const", const=NO_HINTS, help="leave the names of the classes aside"
    )


def check_classes(args: argparse.Namespace, modality: Modality) -> None:
    """Check the options before a model is loaded."""
    if args.unlabeled is not None:
        InputTable.of(args, args.unlabeled, modality)
    if args.label_descriptions is not None:
        _read_descriptions(args.label_descriptions)
    given = [name for name in (*VALUES, *FILES) if getattr(args, name) is not None]
    if given and args.examples is None and args.candidate_labels is None:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ValueError(f"Give --examples or --candidate-labels with {options}; a saved task has its own.")


def class_arguments(args: argparse.Namespace, modality: Modality) -> dict[str, Any]:
    """Return the options as arguments of the pipeline, as far as they are given."""
    given: dict[str, Any] = {name: getattr(args, name) for name in VALUES if getattr(args, name) is not None}
    if (names := given.get("hints")) is not None:
        listed = [name.strip() for name in names.split(",")]
        given["hints"] = None if names == NO_HINTS else listed if len(listed) > 1 else listed[0]
    if args.label_descriptions is not None:
        given["label_descriptions"] = _read_descriptions(args.label_descriptions)
    if args.unlabeled is not None:
        rows = InputTable.of(args, args.unlabeled, modality).inputs()
        given["unlabeled"] = [item for item, _ in rows if not isinstance(item, Unreadable)]
    return {**given, **column_arguments(args)}


def load_fitted(args: argparse.Namespace, config: Any) -> TartClassificationPipeline:
    """Return the pipeline of a command with its task: that of the options of examples and classes, or a saved one."""
    modality = modality_of(config)
    check_classes(args, modality)
    if args.examples is not None:
        check_examples(args, modality)
    return load_pipeline(args, config, args.examples, **class_arguments(args, modality))


def _read_descriptions(path: str) -> dict[str, Any]:
    """Read texts by label, of a JSON object or of a table."""
    if path.endswith(".json") and file_format(path):
        try:
            found = json.loads(Path(path).read_text(encoding="utf-8-sig"))
        except ValueError as err:
            raise ValueError(f"{path} is not JSON: {err}.") from err
        if isinstance(found, dict):
            return found
    found = read_columns(path)
    if found is not None and not set(COLUMNS) <= set(found):
        raise ValueError(f"{path} has the columns {found}; it needs the columns {' and '.join(COLUMNS)}.")
    rows = list(read_rows(path))
    described = {str(row.get("label")): row.get("description") for row in rows}
    if len(described) < len(rows):
        raise ValueError(f"{path} describes a label twice; leave one description of each.")
    return described
