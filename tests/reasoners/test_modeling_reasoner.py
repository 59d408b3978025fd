"""What the reasoner does for every architecture: checks, one against the rest, subsets, saving."""

import re
from pathlib import Path

import pytest
import torch
from helpers.builders import build_reasoner, draw_task, read_files, shared_reasoner
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModel

from transformers_tart import TartReasoner, TartReasonerConfig
from transformers_tart.inputs.balance import balanced_subsets
from transformers_tart.reasoners.architectures import ARCHITECTURES
from transformers_tart.reasoners.weights import ALIGNMENT


pytestmark = pytest.mark.core


SEEDS = 24


def accuracy(reasoner: TartReasoner, support: Tensor, labels: Tensor, query: Tensor, truth: Tensor) -> float:
    with torch.no_grad():
        return (reasoner(support, labels, query).logits.argmax(-1) == truth).float().mean().item()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("classes", [2, 4])
def test__reasoner__prepare_and_query__equal_forward(architecture: str, classes: int) -> None:
    reasoner = build_reasoner(architecture)
    support, labels, query, _ = draw_task(classes=classes)
    with torch.no_grad():
        state = reasoner.prepare(support, labels)
        assert torch.equal(reasoner.query(state, query), reasoner(support, labels, query).logits)
        assert torch.equal(reasoner.query(state.to("cpu"), query), reasoner.query(state, query))


def test__reasoner__query_labels__cross_entropy_with_gradients() -> None:
    reasoner = build_reasoner()
    support, labels, query, truth = draw_task(classes=3)
    output = reasoner(support, labels, query, query_labels=truth)
    expected = torch.nn.functional.cross_entropy(output.logits[0], truth[0])
    torch.testing.assert_close(output.loss, expected)
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in reasoner.parameters())


def test__reasoner__return_dict_false__a_tuple() -> None:
    output = build_reasoner()(*draw_task()[:3], return_dict=False)
    assert isinstance(output, tuple)
    assert output[0].shape == (1, 9, 2)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@given(classes=st.integers(3, 6), seed=st.integers(0, 100))
def test__reasoner__one_against_the_rest__equals_each_binary_task_alone(
    architecture: str, classes: int, seed: int
) -> None:
    reasoner = build_reasoner(architecture, max_classes=2)
    support, labels, query, _ = draw_task(classes=classes, seed=seed)
    with torch.no_grad():
        found = reasoner(support, labels, query).logits
        for c in range(classes):
            alone = reasoner(support, (labels == c).long(), query).logits.log_softmax(-1)[..., 1]
            torch.testing.assert_close(found[..., c], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("limit", "classes", "expected"), [(None, 9, False), (2, 2, False), (2, 3, True), (4, 5, True)]
)
def test__reasoner__max_classes__decides_one_against_the_rest(limit: int | None, classes: int, expected: bool) -> None:
    support, labels, _, _ = draw_task(classes=classes)
    state = build_reasoner(max_classes=limit).prepare(support, labels)
    assert len(state.views[0].parts[0].state.frequency) == (classes if expected else 1)


@given(size=st.integers(2, 200), classes=st.integers(2, 6), limit=st.integers(2, 60), seed=st.integers(0, 9))
def test__balanced_subsets__any_size__disjoint_complete_and_balanced(
    size: int, classes: int, limit: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (2, size), generator=generator)
    subsets = balanced_subsets(torch.randn(2, size, 3, generator=generator), labels, limit)
    assert len(subsets) == -(-size // limit)
    assert max(index.shape[1] for index in subsets) <= limit
    assert max(index.shape[1] for index in subsets) - min(index.shape[1] for index in subsets) <= 1
    assert torch.equal(torch.cat(subsets, 1).sort(1).values, torch.arange(size).expand(2, -1))
    counts = torch.stack([torch.nn.functional.one_hot(labels.gather(1, i), classes).sum(1) for i in subsets])
    assert (counts.max(0).values - counts.min(0).values).max() <= 1


def test__reasoner__support_above_the_limit__average_of_its_subsets() -> None:
    reasoner = build_reasoner(max_support=10)
    support, labels, query, _ = draw_task(25, classes=3)
    with torch.no_grad():
        state = reasoner.prepare(support, labels)
        found = reasoner.query(state, query).exp()
        expected = torch.zeros_like(found)
        for index in balanced_subsets(support, labels, 10):
            alone = reasoner(support[:, index[0]], labels[:, index[0]], query, num_labels=3)
            expected += alone.logits.softmax(-1) * index.shape[1] / 25
    assert sum(part.weight for part in state.views[0].parts) == pytest.approx(1.0)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test__shipped_reasoner__true_labels__learned_and_shuffled_labels__chance() -> None:
    true, shuffled = [], []
    for seed in range(SEEDS):
        support, labels, query, truth = draw_task(40, 60, seed=seed, gap=1.5)
        true.append(accuracy(shared_reasoner(), support, labels, query, truth))
        order = torch.randperm(40, generator=torch.Generator().manual_seed(seed))
        shuffled.append(accuracy(shared_reasoner(), support, labels[:, order], query, truth))
    assert sum(true) / SEEDS > 0.97
    # of two equally frequent classes, more than three standard deviations on either side
    assert 0.4 < sum(shuffled) / SEEDS < 0.6


def test__shipped_reasoner__many_classes__learned() -> None:
    support, labels, query, truth = draw_task(120, 60, dim=24, classes=12, gap=1.5)
    assert accuracy(shared_reasoner(), support, labels, query, truth) > 0.9


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("load", [TartReasoner.from_pretrained, AutoModel.from_pretrained])
def test__reasoner__saved_and_loaded__same_logits_and_bytes(architecture: str, load: object, tmp_path: Path) -> None:
    reasoner = build_reasoner(architecture)
    reasoner.save_pretrained(tmp_path / "a")
    loaded, info = load(tmp_path / "a", output_loading_info=True)
    loaded.save_pretrained(tmp_path / "b")
    assert isinstance(loaded, TartReasoner)
    assert not loaded.training
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    task = draw_task(classes=3)[:3]
    assert torch.equal(loaded(*task).logits, reasoner(*task).logits)
    assert {parameter.data_ptr() % ALIGNMENT for parameter in loaded.parameters()} == {0}
    assert read_files(tmp_path / "a") == read_files(tmp_path / "b")


def test__reasoner__state_dict_given__written_and_left_alone(tmp_path: Path) -> None:
    reasoner = build_reasoner()
    state_dict = {name: tensor + 1 for name, tensor in reasoner.state_dict().items()}
    names = list(state_dict)
    reasoner.save_pretrained(tmp_path, state_dict=state_dict)
    assert list(state_dict) == names
    assert all(torch.equal(state_dict[name], x) for name, x in load_file(tmp_path / "model.safetensors").items())


def test__reasoner__dtype__float32_unless_asked(tmp_path: Path) -> None:
    build_reasoner().to(torch.bfloat16).save_pretrained(tmp_path)
    assert TartReasoner.from_pretrained(tmp_path).dtype == torch.float32
    loaded = TartReasoner.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert loaded.dtype == torch.bfloat16
    assert torch.isfinite(loaded(*draw_task()[:3]).logits).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test__reasoner__same_seed__same_bytes(architecture: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        torch.manual_seed(3)
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        TartReasoner(TartReasonerConfig(architecture=architecture, **sizes)).save_pretrained(tmp_path / name)
    assert read_files(tmp_path / "a") == read_files(tmp_path / "b")


def test__reasoner__card_of_the_user__is_kept(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    build_reasoner().save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def test__reasoner__unknown_architecture__says_which_there_are() -> None:
    names = re.escape(str(sorted(ARCHITECTURES)))
    with pytest.raises(ValueError, match=rf"Unknown.*'quantum'.*{names}.*update transformers-tart"):
        TartReasoner(TartReasonerConfig(architecture="quantum"))
