"""Loading from the Hub when something is missing, damaged or forbidden: one clear error each."""

from typing import Any

import pytest
import torch
from helpers.builders import build_backbone
from helpers.hub_models import (
    BASE,
    MODEL,
    REASONER,
    TASK,
    WEIGHTS,
    compose,
    compute_logits,
    fit,
    make_reasoner,
    reason,
)
from helpers.hub_server import HubServer
from huggingface_hub import constants
from transformers import AutoModel, PreTrainedTokenizerFast

from transformers_tart import TartForSequenceClassification, TartReasoner
from transformers_tart.errors import BackboneNotFoundError, CorruptFileError
from transformers_tart.support import SUPPORT_FILE


pytest_plugins = ["helpers.hub_fixtures"]


@pytest.fixture
def task(base_tokenizer: PreTrainedTokenizerFast) -> TartForSequenceClassification:
    """A model that is fitted to a task and on the Hub."""
    classify = fit(base_tokenizer)
    classify.push_to_hub(TASK)
    return classify.model


def test__from_pretrained__missing_repository__error_says_so(hub: HubServer) -> None:
    with pytest.raises(OSError, match="org/nothing is not a local folder and is not a valid model identifier"):
        TartForSequenceClassification.from_pretrained("org/nothing")


def test__from_pretrained__wrong_token__error_says_so(hub: HubServer) -> None:
    make_reasoner().push_to_hub(REASONER, private=True)
    with pytest.raises(OSError, match="Invalid credentials"):
        TartReasoner.from_pretrained(REASONER, token="hf_wrong")


@pytest.mark.slow
def test__from_pretrained__missing_revision__error_names_it(task: TartForSequenceClassification) -> None:
    with pytest.raises(OSError, match="v9 is not a valid git identifier"):
        AutoModel.from_pretrained(TASK, revision="v9")


@pytest.mark.parametrize("model_class", [TartForSequenceClassification, TartReasoner])
def test__from_pretrained__local_files_only_and_never_loaded__error_says_so(hub: HubServer, model_class: Any) -> None:
    make_reasoner().push_to_hub(REASONER)
    with pytest.raises(OSError, match=rf"^{REASONER} cannot be loaded: .*find them in the cached files"):
        model_class.from_pretrained(REASONER, local_files_only=True)


@pytest.mark.parametrize(
    "load", [TartForSequenceClassification.from_backbone, TartForSequenceClassification.from_pretrained]
)
def test__load__folder_that_is_missing__error_says_so(load: Any) -> None:
    with pytest.raises(OSError, match=r"^\./nowhere is no folder on this machine"):
        load("./nowhere")


@pytest.mark.slow
def test__from_pretrained__missing_backbone__error_names_it_and_another_is_taken(
    hub: HubServer,
    task: TartForSequenceClassification,
    base_tokenizer: PreTrainedTokenizerFast,
    fresh: dict[str, Any],
) -> None:
    del hub.storage.repositories[BASE]
    with pytest.raises(BackboneNotFoundError, match=r'(?s)backbone "org/base".*from_pretrained\(\.\.\., backbone='):
        AutoModel.from_pretrained(TASK, **fresh)
    loaded = AutoModel.from_pretrained(TASK, backbone=build_backbone("gpt2"), **fresh)
    assert torch.equal(compute_logits(loaded, base_tokenizer), compute_logits(task, base_tokenizer))


def test__from_pretrained__missing_revision_of_the_backbone__error_names_it(
    base_tokenizer: PreTrainedTokenizerFast,
) -> None:
    model = compose()
    model.config.base_model_revision = "v9"
    model.push_to_hub(MODEL)
    with pytest.raises(BackboneNotFoundError, match='backbone "org/base" at revision v9'):
        AutoModel.from_pretrained(MODEL)


@pytest.mark.slow
@pytest.mark.parametrize("path", ["config.json", WEIGHTS, SUPPORT_FILE])
def test__from_pretrained__dropped_connection__error_names_the_repository(
    hub: HubServer, task: TartForSequenceClassification, fresh: dict[str, Any], path: str
) -> None:
    hub.drop_connections(TASK, path)
    with pytest.raises(OSError, match="The connection to the Hub broke while me/task was loaded"):
        TartForSequenceClassification.from_pretrained(TASK, **fresh)
    hub.broken.clear()
    assert TartForSequenceClassification.from_pretrained(TASK, **fresh).support is not None


def test__from_pretrained__connection_dropped_once__download_goes_on(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_reasoner().push_to_hub(REASONER)
    hub.drop_connections(REASONER, WEIGHTS, times=1)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    assert torch.equal(reason(TartReasoner.from_pretrained(REASONER)), reason(make_reasoner()))
    assert any(WEIGHTS in request and "bytes=" in request for request in hub.requests)


@pytest.mark.slow
@pytest.mark.parametrize("path", ["config.json", WEIGHTS])
def test__from_pretrained__dropped_connection_to_the_backbone__error_names_it(
    hub: HubServer, task: TartForSequenceClassification, fresh: dict[str, Any], path: str
) -> None:
    hub.drop_connections(BASE, path)
    with pytest.raises(BackboneNotFoundError, match='backbone "org/base".*The connection to the Hub broke'):
        TartForSequenceClassification.from_pretrained(TASK, **fresh)


@pytest.mark.slow
@pytest.mark.parametrize("path", [WEIGHTS, SUPPORT_FILE])
def test__from_pretrained__truncated_file__corrupt_file_error(
    hub: HubServer, task: TartForSequenceClassification, path: str
) -> None:
    hub.truncate(TASK, path)
    with pytest.raises(CorruptFileError, match="download (them|it) again"):
        AutoModel.from_pretrained(TASK)


@pytest.mark.slow
def test__from_pretrained__truncated_backbone__corrupt_file_error_names_it(
    hub: HubServer, task: TartForSequenceClassification, fresh: dict[str, Any]
) -> None:
    hub.truncate(BASE, WEIGHTS)
    with pytest.raises(CorruptFileError, match="The weights in org/base are damaged"):
        AutoModel.from_pretrained(TASK, **fresh)


def test__from_pretrained__truncated_backbone_inside__corrupt_file_error_names_the_repository(
    hub: HubServer, base_tokenizer: PreTrainedTokenizerFast
) -> None:
    compose().push_to_hub(MODEL, include_backbone=True)
    hub.truncate(MODEL, f"backbone/{WEIGHTS}")
    with pytest.raises(CorruptFileError, match="The weights in me/model are damaged"):
        AutoModel.from_pretrained(MODEL)


@pytest.mark.slow
def test__from_pretrained__missing_support_set__corrupt_file_error(
    hub: HubServer, task: TartForSequenceClassification
) -> None:
    hub.replace(TASK, **{SUPPORT_FILE: None})
    with pytest.raises(CorruptFileError, match=f"announces a support set, but {SUPPORT_FILE} cannot be loaded"):
        AutoModel.from_pretrained(TASK)


@pytest.mark.slow
def test__from_pretrained__missing_weights__error_says_so_and_no_conversion_is_asked_for(
    hub: HubServer, task: TartForSequenceClassification
) -> None:
    hub.replace(TASK, **{WEIGHTS: None})
    with pytest.raises(OSError, match=f"me/task does not appear to have a file named {WEIGHTS}"):
        AutoModel.from_pretrained(TASK)
    assert not [request for request in hub.requests if "/commits/" in request or "/discussions" in request]


def test__from_pretrained__other_kinds_of_repository__value_error_says_what_to_call(
    base_tokenizer: PreTrainedTokenizerFast,
) -> None:
    make_reasoner().push_to_hub(REASONER)
    with pytest.raises(ValueError, match='org/base holds a model of type "gpt2".*from_backbone'):
        TartForSequenceClassification.from_pretrained(BASE)
    with pytest.raises(ValueError, match="me/reasoner holds a reasoner alone.*TartReasoner.from_pretrained"):
        TartForSequenceClassification.from_pretrained(REASONER)


def test__push_to_hub__without_a_token__error_and_nothing_is_made(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(OSError, match="401"):
        make_reasoner().push_to_hub(REASONER)
    assert hub.storage.repositories == {}
