"""The card of a model, task or reasoner, from the template beside this file."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from transformers_tart.backbones import EMBEDDED, is_local
from transformers_tart.configuration_tart import IN_CONTEXT_PROTOCOLS, TartConfig, TartReasonerConfig


TEMPLATE = Path(__file__).with_name("model_card_template.md")
TAGS = ["tart", "in-context-learning", "few-shot"]

TASK_USAGE = """import transformers_tart
from transformers import pipeline

classify = pipeline("tart-classification", model="{repo}")
classify("{query}")"""

MODEL_USAGE = """import transformers_tart
from transformers import pipeline

examples = {examples}
classify = pipeline("tart-classification", model="{repo}", examples=examples)
classify("{query}")"""

INPUTS = {"text": "texts", "image": "images", "audio": "recordings"}
# Of each modality: examples, and what is classified.
SHOWN = {
    "text": (
        '[{"text": "free entry, text WIN now", "label": "spam"}, {"text": "see you at eight", "label": "ham"}]',
        "a text",
    ),
    "image": ('[{"image": "tabby.jpg", "label": "cat"}, {"image": "beagle.jpg", "label": "dog"}]', "new.jpg"),
    "audio": ('[{"audio": "yes.wav", "label": "yes"}, {"audio": "no.wav", "label": "no"}]', "new.wav"),
}

REASONER_USAGE = """from transformers_tart import TartReasoner

reasoner = TartReasoner.from_pretrained("{repo}")
logits = reasoner(support_embeddings, support_labels, query_embeddings).logits"""


@dataclass
class CardFacts:
    r"""
    What only the publisher knows.

    Args:
        repo_id (`str`, *optional*, defaults to `"org/name"`):
            The repository, for the example.
        datasets (`list[str]`, *optional*):
            Hub ids of the data sets that the support set was taken from.
        language (`str` or `list[str]`, *optional*), license (`str`, *optional*):
            As on every card.
        results (`list[EvalResult]`, *optional*):
            Measured results.
    """

    repo_id: str = "org/name"
    datasets: list[str] | None = None
    language: str | list[str] | None = None
    license: str | None = None
    results: list[EvalResult] = field(default_factory=list)


@dataclass(frozen=True)
class TrainingFacts:
    """How a reasoner was trained.

    Attributes:
        run: rows of the table of details.
        validation: for each shape of task, for each method, its `loss` and `accuracy`.
    """

    run: dict[str, object]
    validation: dict[str, dict[str, dict[str, float]]]


def _card(facts: CardFacts, data: dict[str, Any], title: str, **content: Any) -> ModelCard:
    name: dict[str, Any] = {"model_name": facts.repo_id, "eval_results": facts.results} if facts.results else {}
    card_data = ModelCardData(
        library_name="transformers",
        datasets=facts.datasets,
        language=facts.language,
        license=facts.license,
        **data,
        **name,
    )
    return ModelCard.from_template(
        card_data, template_path=str(TEMPLATE), title=title, results=facts.results, **content
    )


def _reasoner_details(config: TartReasonerConfig) -> dict[str, object]:
    return {
        "reasoner": f"`{config.architecture}`, {config.num_hidden_layers} layers of width {config.hidden_size}",
        "classes read at once": config.max_classes or "any number",
        "support set read at once": f"up to {config.max_support} examples; more are split and averaged",
    }


def _as_code(name: str) -> str:
    """A name as code in the cell of a table, which bars, line breaks and backticks would end."""
    return "`" + " ".join(name.split()).replace("|", "\\|").replace("`", "'") + "`"


def _describe_backbone(config: TartConfig) -> tuple[str, str | None]:
    """What the card says of the backbone, and its Hub id where it has one."""
    base = config.base_model_name_or_path
    if base is None or is_local(base):
        return "included" if config.include_backbone else "a local model", None
    if base in EMBEDDED:
        return f"`{base}`" + ("" if config.include_backbone else ", inside transformers-tart"), None
    return f"`{base}`", base


def classifier_card(
    config: TartConfig, facts: CardFacts, support_size: int | None = None, stores_texts: bool = False
) -> ModelCard:
    """The card of a composition, or of a fitted task when it has a support set of `support_size` examples."""
    backbone, hub_id = _describe_backbone(config)
    labels = ", ".join(_as_code(str(name)) for name in (config.id2label or {}).values())
    fitted = {} if support_size is None else {"labels": labels, "support set": f"{support_size} examples"}
    normalised = ", normalised" if config.normalize else ""
    details = {
        "backbone": backbone,
        "protocol": f"`{config.protocol}`, {config.pooling} pooling{normalised}, layers {config.layers}",
        **_reasoner_details(config.reasoner),
        **fitted,
    }
    kind = config.modality
    task = f"few-shot {kind} classifier" if support_size is None else f"{kind} classifier fitted to a task by examples"
    article = "An" if task[0] in "aeiou" else "A"
    examples, query = SHOWN[kind]
    template = MODEL_USAGE if support_size is None else TASK_USAGE
    usage = template.format(repo=facts.repo_id, examples=examples, query=query)
    data = {"pipeline_tag": f"{kind}-classification", "tags": TAGS, "base_model": hub_id}
    return _card(
        facts,
        data,
        title=facts.repo_id,
        summary=f"{article} {task}, on a frozen backbone, made with transformers-tart.",
        inputs=INPUTS[kind],
        usage=usage,
        details=details,
        stores_support=support_size is not None,
        stores_texts=stores_texts,
        stores_prompt=config.protocol in IN_CONTEXT_PROTOCOLS,
    )


def reasoner_card(config: TartReasonerConfig, facts: CardFacts, training: TrainingFacts | None = None) -> ModelCard:
    """The card of a reasoner alone; with what is known of its training."""
    return _card(
        facts,
        {"tags": [*TAGS, "tart-reasoner"]},
        title=facts.repo_id,
        summary="A reasoner for few-shot classification on labelled embeddings of any frozen model.",
        inputs="texts, images or recordings",
        usage=REASONER_USAGE.format(repo=facts.repo_id),
        details={**_reasoner_details(config), **(training.run if training else {})},
        validation=training.validation if training else {},
        stores_support=False,
        stores_texts=False,
    )


__all__ = ["CardFacts", "TrainingFacts", "classifier_card", "reasoner_card"]
