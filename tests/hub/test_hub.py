"""Pushing to the Hub and loading back, with the real client, against a server on loopback."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.builders import build_backbone, build_tokenizer
from helpers.hub_models import (
    BASE,
    EXAMPLES,
    MODEL,
    REASONER,
    TASK,
    TEXTS,
    WEIGHTS,
    compose,
    compute_logits,
    fit,
    make_reasoner,
    reason,
)
from helpers.hub_server import TOKEN, HubServer, front_matter
from huggingface_hub import EvalResult, HfApi, constants
from safetensors.torch import load
from transformers import AutoModel, AutoModelForSequenceClassification, PreTrainedTokenizerFast, pipeline

from transformers_tart import TartForSequenceClassification, TartReasoner, View
from transformers_tart.hub.card import CardFacts
from transformers_tart.hub.push import CARD_FILE
from transformers_tart.hub.remote_code import STUB_NAME
from transformers_tart.support import SUPPORT_FILE


pytestmark = pytest.mark.core


pytest_plugins = ["helpers.hub_fixtures"]

REASONER_FILES = {"config.json", WEIGHTS, CARD_FILE, f"{STUB_NAME}.py"}
TASK_FILES = {*REASONER_FILES, SUPPORT_FILE, "tokenizer.json", "tokenizer_config.json"}


def files_with_texts(files: dict[str, bytes]) -> set[str]:
    """Files that hold a text of the examples."""
    texts = [example["text"].encode() for example in EXAMPLES]
    return {path for path, content in files.items() if any(text in content for text in texts)}


@pytest.mark.slow
@pytest.mark.parametrize("loader", [AutoModel, AutoModelForSequenceClassification, TartForSequenceClassification])
def test__push_to_hub__composition__same_logits(base_tokenizer: PreTrainedTokenizerFast, loader: Any) -> None:
    model = compose()
    model.push_to_hub(MODEL)
    loaded = loader.from_pretrained(MODEL)
    assert isinstance(loaded, TartForSequenceClassification)
    assert torch.equal(compute_logits(loaded, base_tokenizer), compute_logits(model, base_tokenizer))


@pytest.mark.slow
def test__push_to_hub__composition__pipeline_takes_the_tokenizer_of_the_backbone(
    base_tokenizer: PreTrainedTokenizerFast,
) -> None:
    compose().push_to_hub(MODEL)
    classify = pipeline("tart-classification", model=MODEL, examples=EXAMPLES)
    assert classify(TEXTS, top_k=None) == fit(base_tokenizer)(TEXTS, top_k=None)


@pytest.mark.slow
@pytest.mark.parametrize("views", ["default", "plain", ["mean", "echo_all", View(template="w1 {text}")]])
@pytest.mark.parametrize("loader", [AutoModel, AutoModelForSequenceClassification])
def test__push_to_hub__task__same_logits(base_tokenizer: PreTrainedTokenizerFast, loader: Any, views: Any) -> None:
    classify = fit(base_tokenizer, views=views)
    classify.push_to_hub(TASK)
    loaded = loader.from_pretrained(TASK)
    assert loaded.support is not None
    assert loaded.config.embedding_options == classify.model.config.embedding_options
    assert torch.equal(compute_logits(loaded, base_tokenizer), compute_logits(classify.model, base_tokenizer))


@pytest.mark.slow
@pytest.mark.parametrize("task", ["tart-classification", "text-classification", None])
def test__push_to_hub__task__pipelines_give_the_same(base_tokenizer: PreTrainedTokenizerFast, task: Any) -> None:
    classify = fit(base_tokenizer)
    classify.push_to_hub(TASK)
    loaded = pipeline(task, model=TASK)
    assert torch.equal(compute_logits(loaded.model, loaded.tokenizer), compute_logits(classify.model, base_tokenizer))
    assert [result["label"] for result in loaded(TEXTS)] == [result["label"] for result in classify(TEXTS)]


@pytest.mark.slow
def test__push_to_hub__task_on_the_embedded_backbone__same_logits(hub: HubServer) -> None:
    classify = pipeline("tart-classification", examples=EXAMPLES)
    classify.push_to_hub(TASK)
    loaded = pipeline("tart-classification", model=TASK)
    assert loaded.model.config.base_model_name_or_path == "mini"
    tokenizer = classify.tokenizer
    assert torch.equal(compute_logits(loaded.model, loaded.tokenizer), compute_logits(classify.model, tokenizer))


@pytest.mark.parametrize("loader", [AutoModel, TartReasoner])
def test__push_to_hub__reasoner__same_logits(hub: HubServer, loader: Any) -> None:
    reasoner = make_reasoner()
    reasoner.push_to_hub(REASONER)
    assert torch.equal(reason(loader.from_pretrained(REASONER)), reason(reasoner))


def test__from_backbone__reasoner_by_name__loaded(hub: HubServer) -> None:
    make_reasoner(layers=3).push_to_hub(REASONER)
    model = TartForSequenceClassification.from_backbone(build_backbone("gpt2"), REASONER)
    assert torch.equal(reason(model.reasoner), reason(make_reasoner(layers=3)))


@pytest.mark.slow
def test__from_backbone__backbone_at_a_revision__kept(base_tokenizer: PreTrainedTokenizerFast) -> None:
    build_backbone("gpt2", seed=5).push_to_hub(BASE, revision="other")
    model = compose(revision="other")
    model.push_to_hub(MODEL)
    loaded = AutoModel.from_pretrained(MODEL)
    assert loaded.config.base_model_revision == "other"
    assert torch.equal(compute_logits(loaded, base_tokenizer), compute_logits(model, base_tokenizer))
    assert not torch.equal(compute_logits(compose(), base_tokenizer), compute_logits(model, base_tokenizer))


@pytest.mark.slow
def test__save_pretrained__with_backbone_and_pushed__loads_without_the_base(
    hub: HubServer, base_tokenizer: PreTrainedTokenizerFast, tmp_path: Path, fresh: dict[str, Any]
) -> None:
    model = fit(base_tokenizer).model
    model.save_pretrained(tmp_path / "full", include_backbone=True)
    model.save_pretrained(tmp_path / "full", include_backbone=True, push_to_hub=True, repo_id=MODEL)
    del hub.storage.repositories[BASE]
    loaded = AutoModel.from_pretrained(MODEL, **fresh)
    assert torch.equal(compute_logits(loaded, base_tokenizer), compute_logits(model, base_tokenizer))


@pytest.mark.slow
def test__pipeline_save_pretrained__with_backbone_and_pushed__loads_without_the_base(
    hub: HubServer, base_tokenizer: PreTrainedTokenizerFast, tmp_path: Path, fresh: dict[str, Any]
) -> None:
    classify = fit(base_tokenizer)
    classify.save_pretrained(tmp_path / "full", include_backbone=True, push_to_hub=True, repo_id=TASK)
    del hub.storage.repositories[BASE]
    loaded = pipeline("tart-classification", model=TASK, model_kwargs=fresh)
    assert loaded(TEXTS, top_k=None) == classify(TEXTS, top_k=None)
    assert hub.commits(TASK) == ["Upload TartClassificationPipeline"]


def test__push_to_hub__task__files(hub: HubServer, base_tokenizer: PreTrainedTokenizerFast) -> None:
    fit(base_tokenizer).push_to_hub(TASK)
    files = hub.files(TASK)
    assert set(files) == TASK_FILES
    assert all(name.startswith("reasoner.") for name in load(files[WEIGHTS]))
    assert not files_with_texts(files)


@pytest.mark.slow
def test__save_pretrained__pushed__same_files(
    hub: HubServer, base_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "notes.txt").write_text("of the user")
    fit(base_tokenizer).save_pretrained(tmp_path / "saved", push_to_hub=True, repo_id=TASK)
    make_reasoner().save_pretrained(tmp_path / "reasoner", push_to_hub=True, repo_id=REASONER)
    assert set(hub.files(TASK)) == TASK_FILES
    assert set(hub.files(REASONER)) == REASONER_FILES


def test__push_to_hub__task__card(hub: HubServer, base_tokenizer: PreTrainedTokenizerFast) -> None:
    fit(base_tokenizer).push_to_hub(TASK, tags=["mine"])
    card = front_matter(hub.files(TASK)[CARD_FILE].decode())
    assert (card["library_name"], card["pipeline_tag"]) == ("transformers", "text-classification")
    assert card["base_model"] == BASE
    assert card["tags"] == ["tart", "in-context-learning", "few-shot", "mine"]
    assert f'model="{TASK}"'.encode() in hub.files(TASK)[CARD_FILE]
    assert b"not their texts" in hub.files(TASK)[CARD_FILE]


def test__push_to_hub__card_facts__on_the_card(hub: HubServer) -> None:
    task = {"task_type": "text-classification", "dataset_type": "org/set", "dataset_name": "a set"}
    result = EvalResult(**task, metric_type="accuracy", metric_value=0.5)
    reasoner = make_reasoner()
    reasoner.card_facts = CardFacts(datasets=["org/set"], license="mit", results=[result])
    reasoner.push_to_hub(REASONER)
    card = front_matter(hub.files(REASONER)[CARD_FILE].decode())
    assert (card["datasets"], card["license"]) == (["org/set"], "mit")
    assert card["model-index"][0]["name"] == REASONER


@pytest.mark.parametrize("card", ["# Mine\n\n  odd   spaces \n", "---\ntags: [b, a]\n---\n\n\n# Mine\r\n"])
def test__push_to_hub__remote_card__kept_byte_for_byte(hub: HubServer, card: str) -> None:
    hub.storage.create(REASONER, private=False)
    hub.replace(REASONER, **{CARD_FILE: card.encode()})
    make_reasoner().push_to_hub(REASONER)
    assert hub.files(REASONER)[CARD_FILE] == card.encode()
    assert set(hub.files(REASONER)) == REASONER_FILES


def test__push_to_hub__card_on_the_branch_alone__kept(hub: HubServer) -> None:
    hub.storage.create(REASONER, private=False).commit("v2", "a card", {CARD_FILE: b"# Mine"})
    make_reasoner().push_to_hub(REASONER, revision="v2")
    assert hub.files(REASONER, "v2")[CARD_FILE] == b"# Mine"


def test__save_pretrained__texts_included_and_pushed__in_the_support_set_alone(
    hub: HubServer, base_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    fit(base_tokenizer).save_pretrained(tmp_path / "task", include_texts=True, push_to_hub=True, repo_id=TASK)
    assert files_with_texts(hub.files(TASK)) == {SUPPORT_FILE}
    assert b"and their texts" in hub.files(TASK)[CARD_FILE]


@pytest.mark.slow
def test__push_to_hub__revision__branch_is_made_and_loaded(
    hub: HubServer, base_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = compose()
    model.push_to_hub(MODEL, revision="v2")
    loaded = AutoModel.from_pretrained(MODEL, revision="v2")
    assert torch.equal(compute_logits(loaded, base_tokenizer), compute_logits(model, base_tokenizer))
    assert {branch.name for branch in HfApi(hub.url).list_repo_refs(MODEL).branches} == {"main", "v2"}
    assert hub.files(MODEL) == {}


@pytest.mark.slow
def test__push_to_hub__create_pr__main_is_untouched(hub: HubServer) -> None:
    make_reasoner().push_to_hub(REASONER)
    commit = make_reasoner(layers=3).push_to_hub(REASONER, create_pr=True, commit_message="Deeper")
    assert (commit.pr_revision, hub.commits(REASONER)) == ("refs/pr/1", ["Upload TartReasoner", "Deeper"])
    loaded = TartReasoner.from_pretrained(REASONER, revision="refs/pr/1")
    assert torch.equal(reason(loaded), reason(make_reasoner(layers=3)))
    assert torch.equal(reason(TartReasoner.from_pretrained(REASONER)), reason(make_reasoner()))


@pytest.mark.slow
def test__push_to_hub__local_backbone__refused_before_anything_is_pushed(hub: HubServer, tmp_path: Path) -> None:
    build_backbone("gpt2").save_pretrained(tmp_path / "base")
    model = compose(tmp_path / "base")
    classify = pipeline("tart-classification", model=model, tokenizer=build_tokenizer(), examples=EXAMPLES)
    for pushed in (model, classify):
        with pytest.raises(ValueError, match="The backbone is a local folder, which nobody else can load"):
            pushed.push_to_hub(MODEL)
    assert hub.storage.repositories == {}
    model.push_to_hub(MODEL, include_backbone=True)
    assert str(tmp_path).encode() not in b"".join(hub.files(MODEL).values())


@pytest.mark.slow
def test__push_to_hub__private__only_the_token_opens_it(
    hub: HubServer, base_tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    classify = fit(base_tokenizer)
    classify.push_to_hub(TASK, private=True, token=TOKEN)
    assert hub.storage.repositories[TASK].private
    with pytest.raises(OSError, match="(?s)me/task is not a local folder.*make sure to pass a token"):
        TartForSequenceClassification.from_pretrained(TASK)
    loaded = TartForSequenceClassification.from_pretrained(TASK, token=TOKEN)
    assert torch.equal(compute_logits(loaded, base_tokenizer), compute_logits(classify.model, base_tokenizer))


@pytest.mark.slow
@pytest.mark.parametrize("model", [MODEL, BASE])
def test__pipeline__private_backbone__token_opens_its_tokenizer_too(
    hub: HubServer,
    base_tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    model: str,
) -> None:
    compose().push_to_hub(MODEL)
    for repository in hub.storage.repositories.values():
        repository.private = True
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "fresh"))
    classify = pipeline("tart-classification", model=model, examples=EXAMPLES, token=TOKEN)
    assert len(classify(TEXTS)) == len(TEXTS)


@pytest.mark.slow
def test__from_pretrained__subfolder__loads_all_parts(
    hub: HubServer, base_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    classify, folder = fit(base_tokenizer), tmp_path / "task"
    classify.save_pretrained(folder, include_backbone=True)
    hub.storage.create(TASK, private=False)
    saved = {f"a/{path.relative_to(folder)}": path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    hub.replace(TASK, **saved)
    loaded = AutoModel.from_pretrained(TASK, subfolder="a")
    assert torch.equal(compute_logits(loaded, base_tokenizer), compute_logits(classify.model, base_tokenizer))


@pytest.mark.slow
def test__from_pretrained__local_files_only__second_load_asks_nothing(
    hub: HubServer, base_tokenizer: PreTrainedTokenizerFast, fresh: dict[str, Any]
) -> None:
    compose().push_to_hub(MODEL)
    options = {"task": "tart-classification", "examples": EXAMPLES}
    online = pipeline(model=AutoModel.from_pretrained(MODEL, **fresh), **options)
    hub.requests.clear()
    offline = pipeline(model=AutoModel.from_pretrained(MODEL, **fresh, local_files_only=True), **options)
    assert offline(TEXTS, top_k=None) == online(TEXTS, top_k=None)
    assert hub.requests == []
