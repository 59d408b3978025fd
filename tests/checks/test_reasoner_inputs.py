"""What a reasoner is given is checked: a right answer or an error that says what was got."""

from typing import Any

import numpy as np
import pytest
import torch
from helpers.builders import build_backbone, build_reasoner, build_tokenizer, draw_task, shared_reasoner

from transformers_tart import TartReasoner
from transformers_tart.configuration_tart import EmbeddingOptions
from transformers_tart.embeddings.in_context import write_prompt
from transformers_tart.inputs.examples import Examples
from transformers_tart.reasoners.architectures import ARCHITECTURES


pytestmark = pytest.mark.core


EACH_ARCHITECTURE = pytest.mark.parametrize("name", ARCHITECTURES)
SUPPORT, LABELS, QUERY, TRUTH = draw_task(12, 5, dim=20)


def get_reasoner(name: str) -> TartReasoner:
    return shared_reasoner() if name == "kernel" else build_reasoner(name)


@EACH_ARCHITECTURE
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test__query__not_finite__said(name: str, value: float, dtype: torch.dtype) -> None:
    query = QUERY.to(dtype).clone()
    query[0, 3, 7] = value
    state = get_reasoner(name).prepare(SUPPORT, LABELS)
    for ask in (lambda: get_reasoner(name).query(state, query), lambda: get_reasoner(name)(SUPPORT, LABELS, query)):
        with pytest.raises(ValueError, match="The query embeddings hold NaN or infinite values"):
            ask()


@EACH_ARCHITECTURE
def test__query__beyond_float32__said(name: str) -> None:
    state = get_reasoner(name).prepare(SUPPORT, LABELS)
    with pytest.raises(ValueError, match="query embeddings hold NaN or infinite"):
        get_reasoner(name).query(state, QUERY.double() * 1e300)
    with pytest.raises(ValueError, match="support embeddings hold NaN or infinite"):
        get_reasoner(name).prepare(SUPPORT.double() * 1e300, LABELS)


@EACH_ARCHITECTURE
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test__reasoner__other_floating_dtypes__as_their_values_in_float32(name: str, dtype: torch.dtype) -> None:
    support, query = SUPPORT.to(dtype), QUERY.to(dtype)
    with torch.no_grad():
        found = get_reasoner(name)(support, LABELS, query).logits
        expected = get_reasoner(name)(support.float(), LABELS, query.float()).logits
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


@EACH_ARCHITECTURE
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.long(), "torch.int64; they must be a torch.Tensor of floating-point"),
        (lambda x: x > 0, "torch.bool"),
        (lambda x: x.to(torch.complex64), "torch.complex64"),
        (lambda x: x.numpy(), "ndarray"),
        (lambda x: x.tolist(), "list"),
        (lambda x: None, "NoneType"),
    ],
)
def test__reasoner__embeddings_of_another_type__type_error(name: str, change: Any, message: str) -> None:
    reasoner = get_reasoner(name)
    with pytest.raises(TypeError, match=f"The query embeddings are {message}"):
        reasoner.query(reasoner.prepare(SUPPORT, LABELS), change(QUERY))
    with pytest.raises(TypeError, match=f"The support embeddings are {message}"):
        reasoner(change(SUPPORT), LABELS, QUERY)


@EACH_ARCHITECTURE
@pytest.mark.parametrize(
    ("query", "message"),
    [
        (QUERY[0], r"batch of 1 and its 20 dimensions; got \(5, 20\)"),
        (QUERY[None], r"got \(1, 1, 5, 20\)"),
        (QUERY.expand(2, -1, -1), r"batch of 1 and its 20 dimensions; got \(2, 5, 20\)"),
        (QUERY[..., :19], "The query embeddings have 19 dimensions, the support set has 20"),
    ],
)
def test__query__shape_that_does_not_fit__names_both(name: str, query: torch.Tensor, message: str) -> None:
    reasoner = get_reasoner(name)
    for state in (reasoner.prepare(SUPPORT, LABELS), reasoner.prepare(SUPPORT, LABELS).to("cpu")):
        with pytest.raises(ValueError, match=message):
            reasoner.query(state, query)


@EACH_ARCHITECTURE
def test__query__none_at_all__no_logits(name: str) -> None:
    reasoner = get_reasoner(name)
    assert reasoner.query(reasoner.prepare(SUPPORT, LABELS), QUERY[:, :0]).shape == (1, 0, 2)


@EACH_ARCHITECTURE
@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (LABELS.numpy(), TypeError, "support labels are ndarray"),
        (LABELS.tolist(), TypeError, "support labels are list"),
        (LABELS.to(torch.complex64), ValueError, "must be integers from 0"),
        (LABELS * 10**12, ValueError, "1000000000001 classes, and at most"),
    ],
)
def test__prepare__bad_labels__said(name: str, labels: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        get_reasoner(name).prepare(SUPPORT, labels)


@EACH_ARCHITECTURE
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test__prepare__small_integer_labels__as_int64(name: str, dtype: torch.dtype) -> None:
    with torch.no_grad():
        found, expected = (get_reasoner(name)(SUPPORT, x, QUERY).logits for x in (LABELS.to(dtype), LABELS))
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("num_labels", "error", "message"),
    [
        (True, TypeError, "num_labels is True of type bool"),
        (2.0, TypeError, "num_labels is 2.0 of type float"),
        ("2", TypeError, "num_labels is '2'"),
        (0, ValueError, "A support label is 1, but there are 0 classes"),
        (-3, ValueError, "there are -3 classes"),
        (10**9, ValueError, "There are 1000000000 classes, and at most"),
    ],
)
def test__prepare__bad_num_labels__said(num_labels: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        shared_reasoner().prepare(SUPPORT, LABELS, num_labels=num_labels)


def test__prepare__numpy_integers__as_their_values() -> None:
    state = shared_reasoner().prepare(SUPPORT, LABELS, num_labels=np.int64(3), seed=np.int32(4))
    assert state.num_labels == 3
    assert shared_reasoner().query(state, QUERY).shape == (1, 5, 3)


@pytest.mark.parametrize(
    ("seed", "error", "message"),
    [
        (None, TypeError, "seed is None"),
        (1.0, TypeError, "seed is 1.0 of type float"),
        (True, TypeError, "seed is True"),
        (2**64, ValueError, "must fit into 64 bits"),
    ],
)
def test__seed__none_or_of_another_type__said(seed: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        shared_reasoner().prepare(SUPPORT, LABELS, seed=seed)
    with pytest.raises(error, match=message):
        build_reasoner("gpt2", num_orders=3).prepare(SUPPORT, LABELS, seed=seed)


@pytest.mark.parametrize("seed", [None, 1.5, "a"])
def test__write_prompt__seed_of_another_type__type_error(seed: Any) -> None:
    examples = Examples(["w1", "w2"], [0, 1], ("w3", "w4"))
    with pytest.raises(TypeError, match="seed is"):
        write_prompt(build_backbone("llama"), build_tokenizer(), examples, EmbeddingOptions(), seed=seed)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (TRUTH.float(), TypeError, "query labels are torch.float32"),
        (TRUTH.tolist(), TypeError, "query labels are list"),
        (TRUTH[:, :4], ValueError, r"shape \(1, 5\); got \(1, 4\)"),
        (TRUTH + 1, ValueError, "classes from 0 to 1"),
        (TRUTH - 1, ValueError, "classes from 0 to 1"),
    ],
)
def test__forward__bad_query_labels__said(labels: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        shared_reasoner()(SUPPORT, LABELS, QUERY, query_labels=labels)


def test__forward__query_labels_left_out__loss_of_the_others() -> None:
    left_out = TRUTH.clone()
    left_out[0, 0] = -100
    found = shared_reasoner()(SUPPORT, LABELS, QUERY, query_labels=left_out).loss
    expected = shared_reasoner()(SUPPORT, LABELS, QUERY[:, 1:], query_labels=TRUTH[:, 1:]).loss
    torch.testing.assert_close(found, expected)
