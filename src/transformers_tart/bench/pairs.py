"""Pairs of the published procedure and ours; a new pair is a function that builds a comparison, and an entry below."""

import functools
import re
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from transformers_tart.backbones.forward import backbone_max_length, resolve_max_length
from transformers_tart.backbones.traits import BackboneTraits
from transformers_tart.bench.timing import Comparison, Meter, Pair
from transformers_tart.bench.workload import (
    POSITIONS,
    LanguageModel,
    Workload,
    draw_embeddings,
    draw_texts,
    load_language_model,
)
from transformers_tart.embeddings import embed, encode_texts
from transformers_tart.embeddings.reference import LABEL_WORDS, MAX_TOKENS, PublishedProcedure
from transformers_tart.embeddings.text import Embedder
from transformers_tart.embeddings.views import choose_views
from transformers_tart.inputs.embedding_options import EmbeddingOptions
from transformers_tart.inputs.examples import Examples
from transformers_tart.reasoners.architectures.gpt2 import GPT2Architecture
from transformers_tart.reasoners.modeling_reasoner import TartReasoner
from transformers_tart.repository import DEFAULT_REASONER
from transformers_tart.training.presets import PRESETS


LABEL = re.compile(r"\nLabel: \w+(?=\n)")
PROMPT_WORDS = (3, 30)  # fewest and most of a text
DIM = 768
SPREAD = 0.1  # of random weights; with the usual 0.02 every probability is about one half


def whiten(support: Tensor, queries: Tensor, n_components: int) -> tuple[Tensor, Tensor]:
    """Project on the principal components of the support set, and whiten, on the CPU."""
    from sklearn.decomposition import PCA

    pca = PCA(n_components, random_state=0).fit(support.cpu().numpy())
    known, new = (pca.transform(rows.cpu().numpy()) for rows in (support, queries))
    values, vectors = np.linalg.eigh(np.cov(known, rowvar=False))
    matrix = vectors @ np.diag(1 / np.sqrt(values)) @ vectors.T
    center = known.mean(0)
    known, new = (torch.from_numpy((rows - center) @ matrix).float().to(support.device) for rows in (known, new))
    return known, new


@torch.no_grad()
def predict_one_by_one(
    head: GPT2Architecture, support: Tensor, labels: Tensor, queries: Tensor, chosen: Sequence[int], meter: Meter
) -> Tensor:
    """Return the probability of the second class, by a run of the head on the support set and each chosen query."""
    known, new = whiten(support, queries, head.input_dim)
    all_labels = torch.cat([labels, labels.new_zeros(1)])[None]  # that of the query is masked
    probabilities = []
    with meter.sample(len(chosen), len(queries)):
        for i in chosen:
            sequence = torch.cat([known, new[i : i + 1]])[None]
            probabilities.append(torch.sigmoid(head.sequence_logits(sequence, all_labels)[0, -1]).item())
    return torch.tensor(probabilities)


class SampledProcedure(PublishedProcedure):
    """The published protocols with only some of their forward passes; the others return zeros.

    `groups` are groups of forward passes of equal cost, in order: the size of each, and the indices that are computed.
    `args` are the arguments of [`PublishedProcedure`].
    """

    def __init__(self, groups: Sequence[tuple[int, Collection[int]]], meter: Meter, *args: Any):
        super().__init__(*args)
        self.calls = iter([(i in made, len(made), total) for total, made in groups for i in range(total)])
        self.meter = meter
        self.places: list[int] = []

    def _prompt_ids(self, prompt: str) -> Tensor:
        encoded = self.tokenizer(prompt, truncation=True, max_length=MAX_TOKENS)
        # the published search needs label words of one token, which not every tokenizer has
        places = [encoded.char_to_token(match.end() - 1) for match in LABEL.finditer(prompt)]
        self.places = [place for place in places if place is not None]
        return torch.tensor(encoded["input_ids"])

    def _label_places(self, ids: Tensor) -> list[int]:
        return self.places

    def _hidden(self, ids: Tensor) -> Tensor:
        is_made, made, total = next(self.calls)
        if not is_made:
            return torch.zeros(len(ids), self.backbone.config.get_text_config().hidden_size)
        with self.meter.sample(made, total):
            return super()._hidden(ids)


def _random_head(workload: Workload) -> TartReasoner:
    """Build the published head with random weights."""
    torch.manual_seed(workload.seed)
    reasoner = TartReasoner(PRESETS["paper-258"].build_config())
    if not reasoner.config.num_components < workload.k <= reasoner.max_support:
        raise ValueError(
            f"k is {workload.k}; the published procedure needs more than the {reasoner.config.num_components} "
            f"dimensions that it whitens, and its head reads at most {reasoner.max_support}."
        )
    with torch.no_grad():
        for parameter in reasoner.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, SPREAD)
    return reasoner.to(workload.device).eval()  # type: ignore[arg-type]


def _compare(workload: Workload, reasoner: TartReasoner, head: TartReasoner) -> Comparison:
    """Compare the head query by query with a reasoner; their results must agree if the reasoner is the head."""
    support, labels, queries = draw_embeddings(workload, DIM)
    chosen = workload.sample(len(queries))
    architecture = head.architecture
    if not isinstance(architecture, GPT2Architecture):
        raise TypeError(f"The head is {type(architecture).__name__}, not a GPT2Architecture.")

    def naive(meter: Meter) -> Tensor:
        return predict_one_by_one(architecture, support, labels, queries, chosen, meter)

    @torch.no_grad()
    def ours() -> Tensor:
        state = reasoner.prepare(support[None], labels[None])
        return reasoner.query(state, queries[None])[0].softmax(-1)[:, 1].cpu()

    return Comparison(
        naive=naive,
        ours=ours,
        rows=chosen,
        size=len(queries),
        model=f"{reasoner.config.architecture} reasoner",
        dtype=reasoner.dtype,
        agrees=reasoner is head,
    )


def compare_heads(workload: Workload) -> Comparison:
    """Compare the published head query by query with the same head on one prefix cache."""
    head = _random_head(workload)
    return _compare(workload, head, head)


def compare_default_reasoner(workload: Workload) -> Comparison:
    """Compare the published head query by query with the reasoner inside this package."""
    reasoner = TartReasoner.from_pretrained(DEFAULT_REASONER).to(workload.device).eval()
    return _compare(workload, reasoner, _random_head(workload))


def compare_protocols(workload: Workload, protocol: str) -> Comparison:
    """Embed the same support set and queries on both sides; ours computes no vocabulary head."""
    model = load_language_model(workload)
    whole = draw_texts(workload.k + workload.queries, workload.seed, *PROMPT_WORDS)
    drawn = [text[: workload.max_characters].strip() for text in whole]  # as prompts truncate them
    texts, queries, labels = drawn[: workload.k], drawn[workload.k :], workload.labels
    if protocol != "stream":
        _check_room(model, texts, queries)
    support_passes = 1 if protocol == "vanilla" else len(texts)
    groups = [(total, workload.sample(total)) for total in (support_passes, len(queries))]
    embedded = range(len(texts)) if protocol == "vanilla" else groups[0][1]

    def naive(meter: Meter) -> Tensor:
        published = model.with_head, model.tokenizer, workload.seed, workload.max_characters
        procedure = SampledProcedure(groups, meter, *published)
        return torch.cat(procedure.embed(protocol, texts, labels, queries)[:2])[rows]

    traits = BackboneTraits(model.backbone)  # kept from one run to the next, as a pipeline keeps them

    def ours() -> Tensor:
        options: dict[str, Any] = {"protocol": protocol, "layers": -1, "label_names": LABEL_WORDS, "max_length": None}
        options |= {"seed": workload.seed, "traits": traits}
        return torch.cat(embed(model.backbone, model.tokenizer, texts, labels, queries, **options)[:2])

    rows = [*embedded, *(len(texts) + i for i in groups[1][1])]
    return Comparison(
        naive=naive,
        ours=ours,
        rows=rows,
        size=len(drawn),
        passes=(sum(len(made) for _, made in groups), sum(total for total, _ in groups)),
        model=workload.model,
        dtype=model.backbone.dtype,
        # the span of an example ends at its label in our prompts, and before the line of the label in the published
        agrees=protocol == "stream",
    )


def _check_room(model: LanguageModel, texts: list[str], queries: list[str]) -> None:
    """Check that the longest prompt is not truncated."""
    blocks = [f"Sentence: {text}\nLabel: {LABEL_WORDS[0]}\n" for text in texts]
    length = len(model.tokenizer("".join([*blocks, f"Sentence: {max(queries, key=len)}\nLabel:"]))["input_ids"])
    room = min(POSITIONS, backbone_max_length(model.with_head) or POSITIONS)
    if length > room:
        raise ValueError(
            f"The prompt of {len(texts)} examples has {length} tokens, and {room} are read: use a smaller k, fewer "
            "characters or a backbone with more positions."
        )


def compare_streams(workload: Workload) -> Comparison:
    """Embed the queries with the same backbone on both sides, without a vocabulary head."""
    model = load_language_model(workload)
    texts = draw_texts(workload.queries, workload.seed, *workload.words)
    chosen = workload.sample_by_length(texts)
    max_length = resolve_max_length(model.backbone, model.tokenizer)
    alone = model.with_head.base_model

    @torch.no_grad()
    def naive(meter: Meter) -> Tensor:
        embeddings = []
        with meter.sample(len(chosen), len(texts)):
            for i in chosen:
                batch = model.tokenizer(texts[i], truncation=True, max_length=max_length, return_tensors="pt")
                hidden = alone(input_ids=batch["input_ids"].to(workload.device)).last_hidden_state
                embeddings.append(hidden[0].float().mean(0).cpu())
        return torch.stack(embeddings)

    def ours() -> Tensor:
        return encode_texts(model.backbone, model.tokenizer, texts).squeeze(1).cpu()

    return Comparison(
        naive=naive, ours=ours, rows=chosen, size=len(texts), model=workload.model, dtype=model.backbone.dtype
    )


def compare_views(workload: Workload, preset: str) -> Comparison:
    """Embed the queries by the views of a preset, on the naive side, and in one pass without a template, on ours."""
    model = load_language_model(workload)
    traits = BackboneTraits(model.backbone)  # kept from one run to the next, as a pipeline keeps them
    texts = draw_texts(workload.queries, workload.seed, *workload.words)
    examples, kind = Examples(texts, [0] * len(texts), ()), "causal" if traits.is_causal else "masked"

    def embed_by(preset: str) -> Tensor:
        embedder = Embedder(traits, EmbeddingOptions(views=choose_views(preset, kind)))
        return embedder.embed_examples(examples, model.tokenizer).embeddings

    return Comparison(
        naive=lambda meter: embed_by(preset),
        ours=lambda: embed_by("plain"),
        rows=list(range(len(texts))),
        size=len(texts),
        model=workload.model,
        dtype=model.backbone.dtype,
        agrees=False,
    )


PAIRS: dict[str, Pair] = {
    name: Pair(name, k, queries, build)
    for name, k, queries, build in (
        ("gpt2-reasoner", 256, 1000, compare_heads),
        ("kernel-reasoner", 256, 1000, compare_default_reasoner),
        ("vanilla", 48, 200, functools.partial(compare_protocols, protocol="vanilla")),
        ("loo", 48, 200, functools.partial(compare_protocols, protocol="loo")),
        ("stream-protocol", 48, 200, functools.partial(compare_protocols, protocol="stream")),
        ("stream", None, 500, compare_streams),
        ("views", None, 500, functools.partial(compare_views, preset="default")),
        ("views-best", None, 500, functools.partial(compare_views, preset="best")),
    )
}
