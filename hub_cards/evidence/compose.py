"""Make, save and load the compositions of the cards, each by one command.

    python compose.py tart-smollm2-135m --output FOLDER                    # the backbone from the Hub
    python compose.py tart-smollm2-135m --output FOLDER --backbone PATH    # or from a folder

A composition is the reasoner, the settings of the backbone's views and a reference to the backbone.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import AutoModel

from transformers_tart import TartForAudioClassification, TartForSequenceClassification
from transformers_tart.modeling_base import TartPreTrainedModel


@dataclass(frozen=True)
class Composition:
    """The backbone of a card, and the class of models of its inputs."""

    backbone: str
    model_class: type[TartPreTrainedModel] = TartForSequenceClassification
    options: Mapping[str, Any] = field(default_factory=dict)


CARDS = {
    "tart-smollm2-135m": Composition("HuggingFaceTB/SmolLM2-135M-Instruct"),
    "tart-gemma-3-270m": Composition("google/gemma-3-270m"),
    "tart-minilm": Composition("sentence-transformers/all-MiniLM-L6-v2"),
    "tart-whisper-base": Composition("openai/whisper-base", TartForAudioClassification),
}


def main() -> None:
    """Make the composition, save it, and load it again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("card", choices=CARDS)
    parser.add_argument("--output", required=True)
    parser.add_argument("--backbone", help="Hub id or folder (default: that of the card)")
    args = parser.parse_args()
    made = CARDS[args.card]
    model = made.model_class.from_backbone(args.backbone or made.backbone, **made.options)
    model.save_pretrained(args.output)
    loaded = AutoModel.from_pretrained(args.output)
    views = ", ".join(view.name for view in loaded.config.views)
    print(f"{args.output}: {type(loaded).__name__} on {loaded.config.base_model_name_or_path}; views {views}")


if __name__ == "__main__":
    main()
