"""The published procedure: its recorded outputs are reproduced."""

import json

import pytest
import torch
from helpers.builders import SHARED, build_backbone, build_tokenizer, make_texts
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

from transformers_tart.conversion import convert_reference_checkpoint
from transformers_tart.embeddings import embed
from transformers_tart.projection import WhitenedPCA


GOLDEN = SHARED / "golden"


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["stream", "vanilla", "loo"])
def test__embed__reference__golden_embeddings_features_and_logits(protocol: str) -> None:
    if not GOLDEN.exists():
        pytest.skip("needs the outputs of the published procedure, which are absent here")
    given = json.loads((GOLDEN / "reference_protocols.json").read_text())
    golden = load_file(GOLDEN / "reference_protocols.safetensors")
    backbone = AutoModel.from_pretrained(GOLDEN / "backbone").eval()
    support, query, labels = embed(
        backbone,
        AutoTokenizer.from_pretrained(GOLDEN / "backbone"),
        [row["text"] for row in given["support"]],
        [row["label"] for row in given["support"]],
        [row["text"] for row in given["query"]],
        protocol=protocol,
        seed=given["seed"],
        reference=True,
    )
    assert labels.tolist() == golden[f"{protocol}.labels"].tolist()
    torch.testing.assert_close(support, golden[f"{protocol}.support"], atol=1e-5, rtol=0)
    torch.testing.assert_close(query, golden[f"{protocol}.query"], atol=1e-5, rtol=0)
    pca = WhitenedPCA(given["n_components"]).fit(support)
    tolerance = 1e-4 if protocol == "stream" else 1e-3
    torch.testing.assert_close(pca.transform(support), golden[f"{protocol}.support_whitened"], atol=tolerance, rtol=0)
    torch.testing.assert_close(pca.transform(query), golden[f"{protocol}.query_whitened"], atol=tolerance, rtol=0)
    reasoner = convert_reference_checkpoint(GOLDEN / "reference_head.pt", GOLDEN / "reference_head_config.json")
    with torch.no_grad():
        log_odds = reasoner(support[None], labels[None], query[None]).logits[0, :, 1]
    torch.testing.assert_close(log_odds, golden[f"{protocol}.logits"], atol=tolerance, rtol=0)


@pytest.mark.parametrize(
    ("options", "labels", "message"),
    [
        ({"pooling": "last"}, [0, 1], "leave them at their defaults"),
        ({"normalize": True}, [0, 1], "leave them at their defaults"),
        ({"layers": "all"}, [0, 1], "leave them at their defaults"),
        ({"protocol": "vanilla", "template": "{text} {label}"}, [0, 1], "leave them at their defaults"),
        ({"max_length": 5}, [0, 1], "leave them at their defaults"),
        ({}, [0, 2], "classes 0 and 1"),
    ],
)
def test__embed__reference_of_what_was_not_published__says_so(
    options: dict[str, object], labels: list[int], message: str
) -> None:
    texts = make_texts(2)
    with pytest.raises(ValueError, match=message):
        embed(build_backbone("llama"), build_tokenizer(), texts, labels, texts, reference=True, **options)


def test__embed__reference_with_a_label_word_in_a_text__error_instead_of_wrong_spans() -> None:
    tokenizer = build_tokenizer()
    tokenizer.add_tokens(["negative", "positive"])
    backbone = build_backbone("llama", vocab_size=120)
    texts = ["w5 w6", "w7 positive w8", "w9"]
    with pytest.raises(ValueError, match="prompt of 3 examples holds 4 label words"):
        embed(backbone, tokenizer, texts, [0, 1, 0], ["w3"], protocol="vanilla", reference=True)
