"""Views for tests, the backbones that read them, and what each of them gives, read alone by hand."""

from collections.abc import Callable, Sequence
from string import Formatter

import torch
from helpers.builders import BACKBONES, build_backbone, build_tokenizer, make_texts
from helpers.prompts_given import build_long, build_mamba
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast, RobertaConfig, RobertaModel, T5Config, T5Model

from transformers_tart.backbones.traits import BackboneTraits
from transformers_tart.embeddings.cache import EmbeddingCache
from transformers_tart.embeddings.text import Embedder
from transformers_tart.inputs.embedding_options import EmbeddingOptions
from transformers_tart.inputs.examples import Examples
from transformers_tart.inputs.views import View


TEXTS = [*make_texts(6, seed=3, max_words=12), "w1", "w5 " * 20]
# Three whose templates begin alike, one without a template, and one that begins otherwise.
VIEWS = (
    View("mean", "w1 w2 {text}", "mean", "all"),
    View("one_word", "w1 w2 {text} w3 w4", "last", "late", normalize=True),
    View("echo", "w1 w2 {text} w3 w4 w5 {text} w6", "max", -1),
    View("plain", None, "last", 1),
    View("other", "w7 {text} w8", "first", "1:"),
)
POOLED: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda span: span.mean(0),
    "last": lambda span: span[-1],
    "first": lambda span: span[0],
    "second": lambda span: span[:2][-1],
    "max": lambda span: span.max(0).values,
}


def build_t5() -> PreTrainedModel:
    torch.manual_seed(0)
    config = T5Config(vocab_size=99, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
    return T5Model(config).eval()


def build_roberta() -> PreTrainedModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    return RobertaModel(RobertaConfig(**sizes, vocab_size=99, max_position_embeddings=128, pad_token_id=0)).eval()


ENCODERS = {
    "bert": lambda: build_backbone("bert", max_position_embeddings=128),
    "roberta": build_roberta,
    "t5": build_t5,
}
READERS = {
    **{name: lambda name=name: build_long(name) for name in BACKBONES if name != "bert"},
    "mamba": build_mamba,
    **ENCODERS,
}


def build_adding(start: str = "<s>", end: str = "</s>", **options: object) -> PreTrainedTokenizerFast:
    """A tokenizer that puts special tokens around texts and text pairs."""
    tokenizer = build_tokenizer(**options)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{start} $A {end}",
        pair=f"{start} $A {end} $B:1 {end}:1",
        special_tokens=[(token, tokenizer.convert_tokens_to_ids(token)) for token in (start, end)],
    )
    return tokenizer


def tokenizer_for(name: str) -> PreTrainedTokenizerFast:
    """The tokenizer that suits a reader: encoders have special tokens around each text."""
    return build_adding(model_max_length=120) if name in ENCODERS else build_tokenizer()


def embedder_of(
    backbone: PreTrainedModel | BackboneTraits,
    views: Sequence[View],
    cache: EmbeddingCache | None = None,
    **options: object,
) -> Embedder:
    traits = backbone if isinstance(backbone, BackboneTraits) else BackboneTraits(backbone)
    return Embedder(traits, EmbeddingOptions(views=tuple(views), **options), cache)


def read_texts(
    embedder: Embedder, tokenizer: PreTrainedTokenizerFast, texts: Sequence = TEXTS, **options: object
) -> Tensor:
    """(n, layers of all views, hidden)."""
    return embedder.embed_examples(examples_of(texts), tokenizer, **options).embeddings


def examples_of(texts: Sequence) -> Examples:
    """Texts without labels."""
    return Examples(list(texts), [], ())


def bare(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"] if text else []


def write_ids(view: View, tokenizer: PreTrainedTokenizerFast, text: str, ends: bool) -> tuple[list[int], int, int]:
    """Token ids of a template around a text, written by hand, and the span that its pooling reads."""
    if view.template is None:
        ids = tokenizer(text)["input_ids"]
        return ids, 0, len(ids)
    around = tokenizer("w1")["input_ids"]
    place = around.index(bare(tokenizer, "w1")[0])
    ids, begin, end = around[:place], 0, 0
    for literal, field, _, _ in Formatter().parse(view.template):
        ids = ids + bare(tokenizer, literal)
        if field is not None:
            begin, ids = len(ids), ids + bare(tokenizer, text)
            end = len(ids)
    span = (len(ids) - 1, len(ids)) if view.pooling == "last" else (begin, end)
    return ids + (around[place + 1 :] if ends else []), *span


def read_by_hand(
    backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, view: View, texts: Sequence[str] = TEXTS
) -> Tensor:
    """(n, layers, hidden) of one view: a forward pass for each text, without padding, caches and spans of others."""
    encoder = backbone.get_encoder() if backbone.config.is_encoder_decoder else backbone
    rows = []
    for text in texts:
        ids, begin, end = write_ids(view, tokenizer, text, ends=not BackboneTraits(backbone).is_causal)
        with torch.no_grad():
            states = encoder(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
        chosen = [states[i][0, begin:end] for i in view.indices(len(states))]
        rows.append(torch.stack([POOLED[view.pooling](span) for span in chosen]))
    found = torch.stack(rows)
    return found / found.norm(dim=-1, keepdim=True) if view.normalize else found
