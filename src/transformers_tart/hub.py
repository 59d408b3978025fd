"""What models, reasoners and pipelines share when they are saved and pushed."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import ModelCard
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

from transformers_tart.remote_code import NoCodeCopy


if TYPE_CHECKING:
    from transformers import PreTrainedModel

    Base = PreTrainedModel
else:
    Base = object

CARD_FILE = "README.md"


class HubMixin(NoCodeCopy, Base):
    """Writes the card of this package instead of the generic one, and keeps one that the repository has already."""

    def model_card(self) -> ModelCard:
        """The card of this object."""
        raise TypeError(f"{type(self).__name__} has no card.")

    def check_can_be_pushed(self) -> None:
        """Raise a ValueError when what would be pushed cannot be loaded elsewhere."""

    def _upload_modified_files(self, working_dir: Any, repo_id: str, *args: Any, **kwargs: Any) -> Any:
        """Upload a saved folder, with the right card."""
        self.check_can_be_pushed()
        path = Path(working_dir) / CARD_FILE
        remote = _remote_card(repo_id, kwargs.get("token"))
        if remote is None:
            self.model_card().save(path)
        elif path.exists() and ModelCard.load(path).data.to_dict() == remote.data.to_dict():
            path.unlink()  # nothing was added to it: leave the remote file untouched
        return super()._upload_modified_files(working_dir, repo_id, *args, **kwargs)


def _remote_card(repo_id: str, token: str | bool | None) -> ModelCard | None:
    try:
        return ModelCard.load(repo_id, token=token)  # type: ignore[arg-type]
    except (EntryNotFoundError, RepositoryNotFoundError):
        return None


__all__ = ["CARD_FILE", "HubMixin"]
