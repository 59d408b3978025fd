"""Saving and pushing of models, reasoners and pipelines to the Hub."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import ModelCard, hf_hub_download
from huggingface_hub.errors import RemoteEntryNotFoundError, RevisionNotFoundError
from transformers.utils import CONFIG_NAME
from transformers.utils.hub import hf_api

from transformers_tart.hub.card import CardFacts, is_generated, sign
from transformers_tart.hub.remote_code import NoCodeCopy
from transformers_tart.loading.download import take
from transformers_tart.loading.embedded import is_local


if TYPE_CHECKING:
    from transformers import PreTrainedModel

    Base = PreTrainedModel
else:
    Base = object

CARD_FILE = "README.md"
OWNED_WEIGHTS = ("model*.safetensors", "model.safetensors.index.json")
PUSH = ("private", "token", "revision", "create_pr", "commit_message", "commit_description", "tags")


class HubMixin(NoCodeCopy, Base):
    """Mixin that pushes a saved folder as it is, in one commit, and keeps the card of the repository.

    transformers would leave out files that a class saves before its weights, and overwrite the card with its own.
    """

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> Any:
        r"""
        Save and push to the Hub.

        Args:
            repo_id (`str`):
                The repository; it is created when it does not exist.
            kwargs:
                `private`, `token`, `revision` (a branch, created when it does not exist), `create_pr`, `tags`,
                `commit_message` and `commit_description`, as in `PreTrainedModel.push_to_hub`; others as in
                `save_pretrained`.

        Returns:
            `CommitInfo`: address and hash of the commit.

        Raises:
            ValueError: When the backbone is a local folder.
        """
        hub = take(kwargs, PUSH)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, **kwargs)
            return self._push_folder(Path(folder), {}, repo_id, **hub)

    @contextmanager
    def _pushing(
        self, folder: str | os.PathLike, kwargs: dict[str, Any], is_main_process: bool = True
    ) -> Iterator[None]:
        """Push the files that the block saves when `kwargs` ask for it; remove the arguments of the Hub from them."""
        push, repo_id = kwargs.pop("push_to_hub", False) and is_main_process, kwargs.pop("repo_id", None)
        hub = take(kwargs, PUSH)
        known = self._get_files_timestamps(folder) if push and os.path.isdir(folder) else {}
        yield
        if push:
            self._push_folder(Path(folder), known, repo_id or Path(folder).name, **hub)

    def _push_folder(
        self,
        folder: Path,
        known: dict[str, float],
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        tags: list[str] | None = None,
        **commit: Any,
    ) -> Any:
        """Upload the files of a folder that are newer than the `known` times."""
        _check_can_be_pushed(folder)
        repo_id = hf_api().create_repo(repo_id, private=private, token=token, exist_ok=True).repo_id
        tags = [*(getattr(self, "model_tags", None) or []), *(tags or [])]
        if CARD_FILE not in known:
            _name_repository(folder / CARD_FILE, repo_id)
        remote = _remote_card(repo_id, revision, token)
        is_new = _merge_card(folder / CARD_FILE, remote, tags)
        known = {**known, CARD_FILE: 0.0 if is_new else float("inf")}
        return self._upload_modified_files(folder, repo_id, known, token=token, revision=revision, **commit)


def _check_can_be_pushed(folder: Path) -> None:
    """Raise a ValueError when a saved folder refers to a backbone in a local folder."""
    config = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
    base = config.get("base_model_name_or_path")
    if base is not None and is_local(base) and not config.get("include_backbone"):
        raise ValueError(
            "The backbone is a local folder, which nobody else can load: push the backbone first and compose from its "
            "Hub id, or include it: push_to_hub(..., include_backbone=True)."
        )


def keep_edited_card(stage: Path, folder: Path) -> None:
    """Drop the new card of a staged save where the folder has one that the user wrote or edited."""
    card = folder / CARD_FILE
    if card.exists() and not is_generated(card.read_text(encoding="utf-8", errors="replace")):
        (stage / CARD_FILE).unlink(missing_ok=True)


def _name_repository(path: Path, repo_id: str) -> None:
    """Write the name of the repository into a card."""
    text = path.read_text(encoding="utf-8")
    named = text.replace(CardFacts.repo_id, repo_id)
    path.write_text(sign(named) if is_generated(text) else named, encoding="utf-8")


def _merge_card(path: Path, remote: ModelCard | None, tags: list[str]) -> bool:
    """Write the card to upload to a path; return whether it differs from the remote one.

    A remote card that the user wrote or edited is kept, with the missing tags.
    """
    kept = None if remote is None or is_generated(remote.content) else remote
    card = kept or ModelCard.load(path)
    unedited = is_generated(card.content)
    present = card.data.get("tags") or []
    missing = [tag for tag in tags if tag not in present]
    if missing:
        card.data["tags"] = [*present, *missing]
        path.write_text(sign(str(card)) if unedited else str(card), encoding="utf-8")
    return kept is None or bool(missing)


def _remote_card(repo_id: str, revision: str | None, token: str | bool | None) -> ModelCard | None:
    try:
        return ModelCard.load(hf_hub_download(repo_id, CARD_FILE, revision=revision, token=token))
    except RemoteEntryNotFoundError:
        return None
    except RevisionNotFoundError:  # a branch that the push is about to create from main
        return _remote_card(repo_id, None, token)
