"""A client that talks to the loopback Hub."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import transformers.utils.hub
from helpers.builders import build_backbone, build_tokenizer
from helpers.hub_models import BASE
from helpers.hub_server import TOKEN, HubServer
from huggingface_hub import close_session, constants, file_download
from huggingface_hub.utils import _http
from transformers import PreTrainedTokenizerFast


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """An empty Hub, and a client that is signed in there and has an empty cache."""
    with HubServer() as server:
        settings = {
            "ENDPOINT": server.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "HF_TOKEN_PATH": str(tmp_path / "token"),
        }
        for name, value in settings.items():
            monkeypatch.setattr(constants, name, value)
        for module in (file_download, _http):  # the client would wait seconds between its attempts
            monkeypatch.setattr(module, "time", SimpleNamespace(sleep=lambda seconds: None))
        monkeypatch.setattr(transformers.utils.hub, "_hf_api", None)  # it keeps the address it was made with
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        close_session()
        yield server
        close_session()


@pytest.fixture
def base_tokenizer(hub: HubServer) -> PreTrainedTokenizerFast:
    """The tokenizer of the backbone, once both are on the Hub."""
    build_backbone("gpt2").push_to_hub(BASE)
    tokenizer = build_tokenizer()
    tokenizer.push_to_hub(BASE)
    return tokenizer


@pytest.fixture
def fresh(tmp_path: Path) -> dict[str, Any]:
    """Arguments that load with an empty cache."""
    return {"cache_dir": tmp_path / "fresh"}


__all__ = ["base_tokenizer", "fresh", "hub"]
