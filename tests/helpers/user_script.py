"""A user's script with every public name, which `mypy --strict` accepts."""

from typing import Any

import torch
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerBase, pipeline

import transformers_tart
from transformers_tart import (
    SupportSet,
    TartAudioConfig,
    TartClassificationPipeline,
    TartConfig,
    TartForAudioClassification,
    TartForImageClassification,
    TartForSequenceClassification,
    TartImageConfig,
    TartReasoner,
    TartReasonerConfig,
)
from transformers_tart.conversion import convert_reference_checkpoint
from transformers_tart.embeddings import embed
from transformers_tart.projection import WhitenedPCA


def compose(tokenizer: PreTrainedTokenizerBase, examples: dict[str, list[str]]) -> torch.Tensor:
    """Classify with a composed model."""
    model: TartForSequenceClassification = TartForSequenceClassification.from_backbone("mini", protocol="loo")
    support: SupportSet = model.encode_support(examples, tokenizer)
    inputs = tokenizer(["a text"], return_tensors="pt")
    logits: torch.Tensor | None = model(**inputs, support=support.to("cpu")).logits
    assert logits is not None
    config: TartConfig = model.config
    reasoner: TartReasonerConfig = config.reasoner
    print(config.protocol, reasoner.architecture, support.label_names, transformers_tart.__version__)
    model.save_pretrained("task", include_texts=True)
    return logits.softmax(-1)


def classify(texts: list[str], examples: dict[str, list[str]]) -> Any:
    """Classify with a pipeline."""
    # the overloads of transformers list its own tasks only
    pipe = pipeline("tart-classification", examples=examples)  # type: ignore[call-overload]
    assert isinstance(pipe, TartClassificationPipeline)
    pipe.set_examples(examples)
    pipe.save_pretrained("task")
    return pipe(texts, top_k=None, batch_size=8)


def reason(embeddings: torch.Tensor, labels: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    """Use a reasoner alone."""
    reasoner: TartReasoner = TartReasoner.from_pretrained("reasoner")
    state = reasoner.prepare(WhitenedPCA(16).fit(embeddings).transform(embeddings), labels)
    logits: torch.Tensor = reasoner.query(state, queries)
    convert_reference_checkpoint("reasoner.pt", "config.yaml").save_pretrained("reasoner")
    return logits


def research(backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    """Embed a support set and queries."""
    support, queries, labels = embed(backbone, tokenizer, ["a", "b"], [0, 1], ["c"], protocol="vanilla")
    return support.sum() + queries.sum() + labels.sum()


def media() -> tuple[TartImageConfig, TartAudioConfig]:
    """Compose classifiers of images and of audio."""
    vision = TartForImageClassification.from_backbone(AutoModel.from_pretrained("vit"))
    audio = TartForAudioClassification.from_backbone("wav2vec2")
    return vision.config, audio.config
