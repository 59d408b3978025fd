"""The language model inside the package: loaded by name, referred to by name, and a real language model."""

import json
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.builders import make_examples, read_files, save_backbone
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, pipeline

from transformers_tart import TartForSequenceClassification
from transformers_tart.backbones import MINI
from transformers_tart.backbones.reference import EMBEDDED, BackboneReference
from transformers_tart.commands.demo import TASKS, load_demo_task
from transformers_tart.errors import BackboneNotFoundError
from transformers_tart.hub.push import _check_can_be_pushed
from transformers_tart.loading.embedded import version_of


pytestmark = pytest.mark.core


TEXTS = ["Call now to win free cash!", "Shall we walk home after dinner?", "x"]
LARGEST = 32_000_000  # bytes that an embedded backbone may take


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task fitted on the embedded backbone, saved."""
    folder = tmp_path_factory.mktemp("mini") / "task"
    pipeline("tart-classification", examples=load_demo_task("spam").examples).save_pretrained(folder)
    return folder


def change_config(task: Path, copy: Path, **fields: object) -> Path:
    """A copy of a saved task with other fields in its config."""
    for name, content in read_files(task).items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(content)
    config = json.loads((task / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, **fields}))
    return copy


def test__mini__files__small_half_precision_and_no_code() -> None:
    files = read_files(MINI)
    card = Path(__file__).parents[2] / "hub_cards" / "tart-mini" / "README.md"
    assert files["README.md"] == card.read_bytes()
    names = {"README.md", "config.json", "generation_config.json", "model.safetensors"}
    assert set(files) == names | {"tokenizer.json", "tokenizer_config.json"}
    assert sum(map(len, files.values())) < LARGEST
    with safe_open(MINI / "model.safetensors", "pt") as weights:
        assert {weights.get_tensor(name).dtype for name in weights.keys()} == {torch.float16}  # noqa: SIM118


def test__mini__loaded__runs_in_float32_as_a_causal_language_model() -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(MINI), AutoTokenizer.from_pretrained(MINI)
    assert model.dtype == torch.float32
    ids = tokenizer("The capital of France is a city, and the", return_tensors="pt").input_ids
    likely = torch.nn.functional.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:])
    shuffled = ids[:, torch.randperm(ids.shape[1], generator=torch.Generator().manual_seed(0))]
    unlikely = torch.nn.functional.cross_entropy(model(shuffled).logits[0, :-1], shuffled[0, 1:])
    assert likely < 6.5 < unlikely


@pytest.mark.slow
@given(text=st.text())
def test__mini_tokenizer__any_text__decoded_up_to_composition(text: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(MINI)
    assert tokenizer.decode(tokenizer(text).input_ids) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize("name", ["mini", MINI, str(MINI)], ids=["name", "path", "string"])
def test__from_backbone__embedded__refers_to_it_by_name_and_version(name: str | Path) -> None:
    config = TartForSequenceClassification.from_backbone(name).config
    assert (config.base_model_name_or_path, config.base_model_revision) == ("mini", version_of("mini"))


def test__from_backbone__loaded_with_head__refers_to_the_name() -> None:
    model = TartForSequenceClassification.from_backbone(AutoModelForCausalLM.from_pretrained(MINI))
    assert model.config.base_model_name_or_path == "mini"


@pytest.mark.slow
def test__from_backbone__folder_of_that_name__does_not_stand_in_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(tmp_path / "mini")
    save_backbone(tmp_path / "mini")
    monkeypatch.chdir(tmp_path)
    assert TartForSequenceClassification.from_backbone("mini").config.base_model_name_or_path == "mini"
    assert not BackboneReference.of("mini").is_local
    assert BackboneReference.of("./mini").is_local
    for name in ("./mini", Path("mini"), Path("./mini"), AutoModel.from_pretrained("mini")):
        assert TartForSequenceClassification.from_backbone(name).config.base_model_name_or_path == folder
    classify = pipeline("tart-classification", model="mini", examples=make_examples())
    assert classify.model.config.base_model_name_or_path == folder  # transformers reads the folder


def test__pipeline__no_model_named__embedded_backbone() -> None:
    classify = pipeline("tart-classification", examples=load_demo_task("spam").examples)
    assert classify.model.config.base_model_name_or_path == "mini"
    assert [answer["label"] for answer in classify(TEXTS[:2])] == ["spam", "ham"]


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test__pipeline__demo_tasks__better_than_guessing_and_not_on_shuffled_labels(name: str) -> None:
    task = load_demo_task(name)
    classify = pipeline("tart-classification", examples=task.examples)
    support = classify.model.support
    guess = 1 / len(set(task.labels))

    def accuracy(labels: torch.Tensor) -> float:
        answers = classify(task.texts, examples=replace(support, labels=labels))
        return sum(a["label"] == label for a, label in zip(answers, task.labels, strict=True)) / len(task.labels)

    assert accuracy(support.labels) > guess + 0.2
    generator = torch.Generator().manual_seed(0)
    # texts of a class lie together, so that one shuffle may turn them all round
    shuffled = [accuracy(support.labels[torch.randperm(len(support), generator=generator)]) for _ in range(10)]
    assert abs(sum(shuffled) / len(shuffled) - guess) < 0.15


@pytest.mark.slow
def test__saved_task__loaded__same_answers_and_no_path_of_this_machine(task: Path) -> None:
    fitted = pipeline("tart-classification", examples=load_demo_task("spam").examples)
    loaded = pipeline("tart-classification", model=str(task))
    plain = pipeline("text-classification", model=str(task))
    expected = fitted(TEXTS)
    assert loaded(TEXTS) == expected
    assert [answer["label"] for answer in plain(TEXTS)] == [answer["label"] for answer in expected]
    for content in read_files(task).values():
        assert str(MINI).encode() not in content
    _check_can_be_pushed(task)


def test__saved_task__card__names_the_backbone_without_claiming_a_repository(task: Path) -> None:
    card = (task / "README.md").read_text()
    assert "| backbone | `mini`, inside transformers-tart |" in card
    assert "base_model" not in card


def test__saved_task__made_with_another_version__refused(task: Path) -> None:
    other = change_config(task, task.parent / "other", base_model_revision="0" * 12)
    with pytest.raises(BackboneNotFoundError, match=f"holds version {version_of('mini')}.*not 000000000000"):
        AutoModel.from_pretrained(other)
    with pytest.raises(BackboneNotFoundError, match="not main"):
        TartForSequenceClassification.from_backbone("mini", revision="main")


def test__from_pretrained__backbone_given_by_name__taken_unless_of_another_version(task: Path) -> None:
    inputs = AutoTokenizer.from_pretrained(MINI)(TEXTS[:1], return_tensors="pt")
    lost = change_config(task, task.parent / "lost", base_model_name_or_path="/nowhere", base_model_revision=None)
    models = [AutoModel.from_pretrained(task), AutoModel.from_pretrained(lost, backbone="mini")]
    assert torch.equal(models[0](**inputs).logits, models[1](**inputs).logits)
    other = change_config(task, task.parent / "foreign", base_model_revision="0" * 12)
    with pytest.raises(BackboneNotFoundError, match="not 000000000000"):
        AutoModel.from_pretrained(other, backbone="mini")


@pytest.mark.slow
def test__saved_task__backbone_included__needs_no_version(task: Path) -> None:
    whole = task.parent / "whole"
    pipeline("tart-classification", model=str(task)).save_pretrained(whole, include_backbone=True)
    other = change_config(whole, task.parent / "moved", base_model_revision="0" * 12)
    expected = pipeline("tart-classification", model=str(task))(TEXTS)
    assert pipeline("tart-classification", model=str(other))(TEXTS) == expected
    assert "inside transformers-tart" not in (whole / "README.md").read_text()


def test__reference__other_names__left_as_they_are() -> None:
    given = BackboneReference.of("org/model", "main")
    assert given == BackboneReference("org/model", "main")
    assert (given.path, given.place) == ("org/model", {"revision": "main"})
    assert BackboneReference.of(Path("org/model")).name == str(Path("org/model"))


def test__reference__empty_revision__not_taken_for_none() -> None:
    with pytest.raises(BackboneNotFoundError, match="not "):
        _ = BackboneReference.of("mini", "").path
    assert BackboneReference.of("org/model", "").place == {"revision": ""}


def test__reference__embedded__by_name_and_version() -> None:
    mini = BackboneReference.of("mini")
    assert (mini.path, mini.place) == (str(EMBEDDED["mini"]), {})
    assert BackboneReference.of(str(MINI), "main") == mini == BackboneReference("mini", version_of("mini"))
    assert mini.pinned() == mini


def test__reference__inside_a_folder__joined() -> None:
    assert BackboneReference("org/model").inside("").place == {}
    assert BackboneReference("org/model", subfolder="a").inside("b").place == {"subfolder": "a/b"}
