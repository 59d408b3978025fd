"""Prompts for tests, the backbones that read them, and what whole prompts give, by hand."""

import torch
from helpers.builders import BACKBONES, build_backbone, build_tokenizer, make_texts
from torch import Tensor
from transformers import (
    MambaConfig,
    MambaModel,
    PreTrainedModel,
)

from transformers_tart.backbones.traits import BackboneTraits
from transformers_tart.embeddings.in_context import (
    WrittenPrompt,
    encode_support,
    leave_one_out_orders,
    write_prompt,
)
from transformers_tart.embeddings.prompts import Continuation, Prefix
from transformers_tart.embeddings.shared_prefix import PrefixEncoder
from transformers_tart.inputs.embedding_options import EmbeddingOptions
from transformers_tart.inputs.examples import Examples
from transformers_tart.inputs.views import View


TEXTS = make_texts(13, max_words=6)
LABELS = [i % 3 for i in range(13)]
NAMES = ["w1", "w2", "w3"]
QUERIES = make_texts(7, seed=5, max_words=6)
CAUSAL = [name for name in BACKBONES if name != "bert"]
PHI3 = {
    **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2},
    **{"intermediate_size": 64, "vocab_size": 99, "max_position_embeddings": 512, "pad_token_id": 0},
}
POOLED = {
    "mean": lambda span: span.mean(0),
    "last": lambda span: span[-1],
    "first": lambda span: span[0],
    "max": lambda span: span.max(0).values,
}
LONG = {"gpt2": "n_positions", "bloom": None}  # how a config names its context, where otherwise


def build_long(model_type: str, **overrides: object) -> PreTrainedModel:
    """A backbone whose context holds the prompts of these tests."""
    name = LONG.get(model_type, "max_position_embeddings")
    return build_backbone(model_type, **({} if name is None else {name: 256}), **overrides)


def build_mamba() -> PreTrainedModel:
    """A recurrent backbone, which keeps no keys and values."""
    torch.manual_seed(0)
    return MambaModel(MambaConfig(hidden_size=32, num_hidden_layers=2, vocab_size=99, state_size=4)).eval()


def write(
    backbone: PreTrainedModel, texts: list = TEXTS, labels: list[int] = LABELS, **options: object
) -> WrittenPrompt:
    seed, template = options.pop("seed", 0), options.pop("template", None)
    given = EmbeddingOptions("vanilla", views=(View("mean", template, layers=-1),), **options)
    return write_prompt(backbone, build_tokenizer(), Examples(texts, labels, NAMES), given, seed)


def encoder_of(backbone: PreTrainedModel, layers: int | str = -1, pooling: str = "mean") -> PrefixEncoder:
    return PrefixEncoder(BackboneTraits(backbone), (View(pooling, pooling=pooling, layers=layers),))


def read_support(encoder: PrefixEncoder, written: WrittenPrompt, protocol: str) -> tuple[Tensor, Prefix]:
    return encode_support(encoder, written.prompt, written.blocks, protocol)


def read_whole(
    backbone: PreTrainedModel, continuation: Continuation, before: tuple[int, ...] = (), pooling: str = "mean"
) -> Tensor:
    """(layers, hidden) of a span of one whole prompt, by hand."""
    with torch.no_grad():
        output = backbone(input_ids=torch.tensor([[*before, *continuation.ids]]), output_hidden_states=True)
    begin, end = (len(before) + place for place in continuation.spans[0])
    spans = [hidden[0, begin:end] for hidden in output.hidden_states]
    return torch.stack([POOLED[pooling](span) for span in spans])


def expected_support(backbone: PreTrainedModel, written: WrittenPrompt, protocol: str, pooling: str) -> Tensor:
    """(k, layers, hidden): a whole prompt for every example."""
    blocks = written.blocks
    orders = leave_one_out_orders(range(len(blocks)))
    rows = []
    for i, block in enumerate(blocks):
        order = orders[i] if protocol == "loo" else tuple(range(i + 1))
        before = tuple(token for j in order[:-1] for token in blocks[j].ids)
        rows.append(read_whole(backbone, Continuation(block.ids, ((0, block.asked),)), before, pooling))
    return torch.stack(rows)


def read_queries(backbone: PreTrainedModel, written: WrittenPrompt, pooling: str) -> Tensor:
    """(n, layers, hidden): a whole prompt for every query."""
    question = written.prompt.question.before[0]
    whole = [Continuation((*question, *query.ids), ((0, len(question) + len(query.ids)),)) for query in ask(written)]
    return torch.stack([read_whole(backbone, query, written.prompt.ids, pooling) for query in whole])


def ask(written: WrittenPrompt, queries: list = QUERIES) -> list[Continuation]:
    return [written.prompt.continuation(parts) for parts in written.writer.parts(queries)]
