"""The weighing of views and label hints: what must not matter, what must, and bad input."""

import re
from typing import Any

import pytest
import torch
from helpers.builders import draw_task
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import one_hot

from transformers_tart import TartReasoner, TartReasonerConfig


pytestmark = pytest.mark.core

SEEDS = st.integers(0, 1000)


class Task:
    """Views, labels and hints of a task, whose second hint is noise in another unit."""

    def __init__(self, seed: int = 0, size: int = 18, queries: int = 7, classes: int = 3, dims: Any = (5, 12)):
        drawn = [draw_task(size, queries, dim, classes, seed + 1000 * i) for i, dim in enumerate(dims)]
        self.support, self.query = [task[0] for task in drawn], [task[2] for task in drawn]
        self.labels, self.truth, self.classes = drawn[0][1], drawn[0][3], classes
        generator = torch.Generator().manual_seed(seed + 7)
        both = torch.cat([self.labels, self.truth], 1)
        good = 1.5 * one_hot(both, classes) + torch.randn(1, size + queries, classes, generator=generator)
        noise = 40 * torch.randn(1, size + queries, classes, generator=generator) + 300
        hints = torch.stack([good, noise], dim=2)
        self.hints, self.query_hints = hints[:, :size], hints[:, size:]
        self.unlabeled = torch.randn(1, 6, 2, classes, generator=generator)


def build(seed: int = 0, **options: Any) -> TartReasoner:
    """Build a reasoner whose weighing depends on all that it may depend on."""
    torch.manual_seed(seed)
    config = TartReasonerConfig(weighing_size=8, holds_out_means=True, **options)
    reasoner = TartReasoner(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in reasoner.weighing.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return reasoner


def answer(reasoner: TartReasoner, task: Task, **changes: Any) -> Tensor:
    given = {**vars(task), **changes}
    with torch.no_grad():
        state = reasoner.prepare(given["support"], given["labels"], given["hints"], given["unlabeled"])
        return reasoner.query(state, given["query"], given["query_hints"]).log_softmax(-1)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.exp(), expected.exp(), atol=1e-5, rtol=1e-5)


@given(seed=SEEDS, order=st.permutations(range(3)))
def test__views__permuted__same_answer(seed: int, order: list[int]) -> None:
    reasoner, task = build(), Task(seed, dims=(5, 12, 9))
    support, query = ([x[i] for i in order] for x in (task.support, task.query))
    close(answer(reasoner, task, support=support, query=query), answer(reasoner, task))


@given(seed=SEEDS)
def test__hints__permuted__same_answer(seed: int) -> None:
    reasoner, task = build(), Task(seed)
    flipped = {name: getattr(task, name).flip(2) for name in ("hints", "query_hints", "unlabeled")}
    close(answer(reasoner, task, **flipped), answer(reasoner, task))


@given(seed=SEEDS)
def test__examples_and_classes__permuted__answer_permuted(seed: int) -> None:
    reasoner, task = build(), Task(seed)
    generator = torch.Generator().manual_seed(seed)
    rows, classes = torch.randperm(18, generator=generator), torch.randperm(3, generator=generator)
    found = answer(
        reasoner,
        task,
        support=[view[:, rows] for view in task.support],
        labels=classes.argsort()[task.labels[:, rows]],
        hints=task.hints[:, rows][..., classes],
        query_hints=task.query_hints[..., classes],
        unlabeled=task.unlabeled[..., classes],
    )
    close(found, answer(reasoner, task)[..., classes])


@given(seed=SEEDS, scale=st.floats(1e-2, 1e2), shift=st.floats(-10, 10))
def test__hints__other_unit_and_constant_of_each_input__same_answer(seed: int, scale: float, shift: float) -> None:
    reasoner, task = build(), Task(seed)
    change = torch.tensor([scale, 1.0])[:, None]
    changed = {name: getattr(task, name) * change + shift for name in ("hints", "query_hints", "unlabeled")}
    found = answer(reasoner, task, **changed)
    torch.testing.assert_close(found.exp(), answer(reasoner, task).exp(), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("unit", [1e-12, 1e12])
def test__hints__tiny_or_huge__same_answer(unit: float) -> None:
    reasoner, task = build(), Task()
    changed = {name: getattr(task, name) * unit for name in ("hints", "query_hints", "unlabeled")}
    torch.testing.assert_close(answer(reasoner, task, **changed), answer(reasoner, task), atol=1e-3, rtol=1e-3)


def test__hints__spread_of_rounding__silent() -> None:
    reasoner, task = build(), Task()
    generator = torch.Generator().manual_seed(0)
    flat = [
        {name: 1 + 6e-8 * torch.randn(getattr(task, name).shape, generator=generator) for name in names}
        for names in [("hints", "query_hints", "unlabeled")] * 2
    ]
    close(answer(reasoner, task, **flat[0]), answer(reasoner, task, **flat[1]))


def test__queries__in_parts__independent() -> None:
    reasoner, task = build(), Task()
    whole = answer(reasoner, task)
    for i in range(7):
        part = {"query": [x[:, i : i + 1] for x in task.query], "query_hints": task.query_hints[:, i : i + 1]}
        close(answer(reasoner, task, **part), whole[:, i : i + 1])


def test__batch__two_tasks__each_as_if_alone() -> None:
    reasoner, tasks = build(), [Task(0), Task(1)]
    names = ("labels", "hints", "query_hints", "unlabeled")
    joined = {name: torch.cat([getattr(task, name) for task in tasks]) for name in names}
    joined |= {
        name: [torch.cat(pair) for pair in zip(*(getattr(task, name) for task in tasks), strict=True)]
        for name in ("support", "query")
    }
    together = answer(reasoner, tasks[0], **joined)
    for i, task in enumerate(tasks):
        close(together[i : i + 1], answer(reasoner, task))


def test__one_view_without_hints__same_answer_as_without_weighing() -> None:
    plain, task = TartReasoner(TartReasonerConfig(holds_out_means=True)).eval(), Task(dims=(5,))
    reasoner = build()
    reasoner.architecture.load_state_dict(plain.architecture.state_dict())
    with torch.no_grad():
        expected = plain(task.support, task.labels, task.query).logits
        assert torch.equal(reasoner(task.support, task.labels, task.query).logits, expected)


@pytest.mark.parametrize("unlabeled", [0, 6])
def test__no_examples__hints_alone__classes_of_the_hints(unlabeled: int) -> None:
    reasoner, task = build(), Task()
    none = {"support": [x[:, :0] for x in task.support], "labels": task.labels[:, :0], "hints": task.hints[:, :0]}
    found = answer(reasoner, task, **none, unlabeled=task.unlabeled[:, :unlabeled])
    assert found.shape == (1, 7, 3)
    one = {"query": [x[:, :1] for x in task.query], "query_hints": task.query_hints[:, :1]}
    close(answer(reasoner, task, **none, unlabeled=task.unlabeled[:, :unlabeled], **one), found[:, :1])


def test__no_examples__one_good_hint__its_favorite() -> None:
    torch.manual_seed(0)
    reasoner, task = TartReasoner(TartReasonerConfig(weighing_size=8)).eval(), Task()
    hints = task.query_hints[:, :, :1]
    state = reasoner.prepare([x[:, :0] for x in task.support], task.labels[:, :0], hints[:, :0])
    assert torch.equal(reasoner.query(state, task.query, hints).argmax(-1), hints[:, :, 0].argmax(-1))


def test__hints__silent_about_a_class__masked() -> None:
    reasoner, task = build(), Task()
    silent, other = {}, {}
    for name in ("hints", "query_hints", "unlabeled"):
        silent[name] = getattr(task, name).clone()
        silent[name][:, :, 0, 2] = float("nan")
        other[name] = silent[name].clone()
    found = answer(reasoner, task, **silent)
    assert torch.isfinite(found).all()
    other["query_hints"][:, :, 0, 2] = 5.0  # of a class about which the support set has no scores
    close(answer(reasoner, task, **other), found)


@given(seed=SEEDS)
def test__explain__any_task__votes_sum_to_the_logits(seed: int) -> None:
    reasoner, task = build(), Task(seed)
    with torch.no_grad():
        state = reasoner.prepare(task.support, task.labels, task.hints, task.unlabeled)
        votes = reasoner.explain(state, task.query, task.query_hints)
        logits = reasoner.query(state, task.query, task.query_hints)
    total = votes.view_logits.sum(0) + votes.hint_logits.sum(0) + votes.offset[:, None]
    torch.testing.assert_close(total, logits, atol=1e-4, rtol=1e-4)
    assert votes.influence.shape == (1, 7, 18)


def test__explain__one_example_beside_the_query__most_influential() -> None:
    task = Task(dims=(60,))
    reasoner = TartReasoner.from_pretrained("kernel").eval()
    with torch.no_grad():
        state = reasoner.prepare(task.support, task.labels)
        votes = reasoner.explain(state, task.support[0])
    predicted = votes.view_logits.sum(0).argmax(-1)
    right = predicted[0] == task.labels[0]
    assert right.float().mean() > 0.8
    assert (votes.influence[0].argmax(-1) == torch.arange(18))[right].float().mean() > 0.8


def test__loss__several_views_and_hints__gradients_of_all_weights() -> None:
    reasoner, task = build().train(), Task()
    output = reasoner(
        task.support,
        task.labels,
        task.query,
        query_labels=task.truth,
        support_hints=task.hints,
        query_hints=task.query_hints,
    )
    output.loss.backward()
    gradients = {name: parameter.grad for name, parameter in reasoner.weighing.named_parameters()}
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())
    assert [name for name, gradient in gradients.items() if gradient.abs().max() == 0] == []


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"hints": torch.zeros(1, 17, 2, 3)}, ValueError, r"support labels (batch, k); got (1, 17, 2, 3) and (1, 18)"),
        ({"hints": torch.zeros(1, 18, 2, 3).long()}, TypeError, "support hints are torch.int64"),
        ({"hints": torch.full((1, 18, 2, 3), torch.inf)}, ValueError, "infinite values; a class of which"),
        ({"unlabeled": torch.zeros(1, 4, 1, 3)}, ValueError, "here (1, m, 2, 3); got (1, 4, 1, 3)"),
        ({"hints": None}, ValueError, "unlabeled_hints are given without support_hints"),
        ({"query_hints": None}, ValueError, "The support set has 2 hints; give those of the queries"),
        ({"query_hints": torch.zeros(1, 7, 2, 4)}, ValueError, "here (1, 7, 2, 3); got (1, 7, 2, 4)"),
        ({"labels": torch.full((1, 18), 3)}, ValueError, "A support label is 3, but there are 3 classes"),
    ],
)
def test__hints__bad__named(changes: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        answer(build(), Task(), **changes)


@pytest.mark.parametrize("options", [{}, {"architecture": "gpt2", "n_positions": 32}])
def test__hints__reasoner_without_weights_for_them__error_says_which_has(options: dict) -> None:
    reasoner, task = TartReasoner(TartReasonerConfig(**options)).eval(), Task(classes=2)
    assert not reasoner.reads_hints
    with pytest.raises(ValueError, match="has no weights for label hints: leave the hints out"):
        reasoner.prepare(task.support, task.labels, task.hints)


def test__config__weighing_of_gpt2__refused() -> None:
    with pytest.raises(ValueError, match="gpt2 architecture has no leave-one-out predictions"):
        TartReasonerConfig(architecture="gpt2", weighing_size=8)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test__weighing__weights_of_another_dtype__close_to_float32(dtype: torch.dtype) -> None:
    task = Task()
    changed = build().to(dtype)
    found = answer(changed, task)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(found.float().exp(), answer(build(), task).exp(), atol=2e-2, rtol=0)


def test__weighing__no_examples_under_autocast__same_answer() -> None:
    reasoner, task = build(), Task(size=0)
    expected = answer(reasoner, task)
    with torch.autocast("cpu", torch.bfloat16):
        close(answer(reasoner, task), expected)
