"""References to backbones: where a backbone is, how a config refers to it, and the loading of its parts."""

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from transformers import PreTrainedModel

from transformers_tart.backbones.sentence_encoders import find_sentence_encoder
from transformers_tart.backbones.sentence_head import attach_head, load_head
from transformers_tart.backbones.sentence_modules import SentenceEncoder
from transformers_tart.backbones.towers import load_tower
from transformers_tart.checks.arguments import as_source, shorten
from transformers_tart.configuration_tart import TartBaseConfig
from transformers_tart.errors import BackboneNotFoundError
from transformers_tart.inputs.modality import Modality
from transformers_tart.loading.auto import base_of_adapter, load_auto
from transformers_tart.loading.download import ACCESS, explain_failures, find_file, pin_revision, select
from transformers_tart.loading.embedded import EMBEDDED, is_local, version_of


@dataclass(frozen=True)
class BackboneReference:
    r"""
    The repository, folder or name of a backbone, with the same meaning in any folder and on any machine.

    Args:
        name (`str`, *optional*):
            Hub id, absolute path, or `"mini"`, the name of the backbone inside this package. `None` for a loaded model
            that came from nowhere.
        revision (`str`, *optional*):
            Revision of the repository; of an embedded backbone the digest of its files.
        subfolder (`str`, *optional*):
            Folder of the backbone inside its repository.
    """

    name: str | None
    revision: str | None = None
    subfolder: str | None = None

    @classmethod
    def of(
        cls, source: str | os.PathLike | PreTrainedModel, revision: str | None = None, subfolder: str | None = None
    ) -> "BackboneReference":
        """Return the reference to a backbone that is given by name, folder, or as a loaded model.

        Only the bare string `"mini"` is the name of the embedded backbone: `Path("mini")` and `"./mini"` are folders.

        Raises:
            TypeError, ValueError: When a name is neither a Hub id nor a path.
        """
        if isinstance(source, PreTrainedModel):
            name, is_bare = source.name_or_path or None, False  # transformers itself has loaded a folder of that name
            if name is None:
                return cls(None, revision, subfolder)
        else:
            name, is_bare = as_source(source, "The backbone", " or a loaded PreTrainedModel"), isinstance(source, str)
        if name in EMBEDDED and is_bare:
            return cls(name, version_of(name) if revision is None else revision)
        if not os.path.isdir(name):
            return cls(os.path.abspath(name) if name in EMBEDDED else name, revision, subfolder)
        embedded = next((key for key, folder in EMBEDDED.items() if os.path.samefile(name, folder)), None)
        if embedded is not None:
            return cls(embedded, version_of(embedded))
        return cls(os.path.abspath(name), revision, subfolder)

    @classmethod
    def from_config(cls, config: TartBaseConfig) -> "BackboneReference":
        """Return the reference that a config holds."""
        return cls(config.base_model_name_or_path, config.base_model_revision, config.base_model_subfolder)

    def config_fields(self) -> dict[str, str | None]:
        """Return the fields of a [`TartBaseConfig`] that hold this reference."""
        return {
            "base_model_name_or_path": self.name,
            "base_model_revision": self.revision,
            "base_model_subfolder": self.subfolder,
        }

    @property
    def is_local(self) -> bool:
        """`True` for a folder of this machine, which nobody else has."""
        return self.name is not None and is_local(self.name)

    @property
    def path(self) -> str:
        """Folder or Hub id for `from_pretrained` of transformers.

        Raises:
            BackboneNotFoundError: For another version of an embedded backbone than this package contains: its
                embeddings would not fit a support set made with that version.
            ValueError: Without a name.
        """
        if self.name is None:
            raise ValueError("The backbone has no Hub id or folder to load it from.")
        if self.name not in EMBEDDED:
            return self.name
        if self.revision not in (None, version_of(self.name)):
            raise BackboneNotFoundError(
                f'This transformers-tart holds version {version_of(self.name)} of the backbone "{self.name}", not '
                f"{self.revision}. Install the transformers-tart that saved the model, or compose it anew and give "
                "the examples again."
            )
        return str(EMBEDDED[self.name])

    @property
    def place(self) -> dict[str, Any]:
        """`revision` and `subfolder` for `from_pretrained`, as far as they are given."""
        given = {"revision": None if self.name in EMBEDDED else self.revision, "subfolder": self.subfolder}
        return {key: value for key, value in given.items() if value is not None}

    def check_origin(self, task: str) -> None:
        """Raise a ValueError when a task from the Hub refers to a folder of this machine.

        A task in a folder may: of the other folder only configs, safetensors and tokenizers are read.
        """
        if self.name is None or os.path.isdir(task) or self.name in EMBEDDED:
            return
        try:
            validate_repo_id(self.name)
        except HFValidationError as err:
            raise ValueError(
                f"{task} refers to the backbone {self.name!r}, a path and not a repository of the Hub; pass a copy of "
                "the backbone that you trust: backbone=<Hub id, folder or model>."
            ) from err

    def pinned(self, **hub: Any) -> "BackboneReference":
        """Return the reference to the commit that the revision is now, so that all files come from one state."""
        if self.name in EMBEDDED:
            return self
        return replace(self, revision=pin_revision(self.path, self.revision, **select(hub, ACCESS)))

    def inside(self, folder: str | None) -> "BackboneReference":
        """Return the reference to a folder inside this one."""
        return replace(self, subfolder="/".join(part for part in (self.subfolder, folder) if part) or None)

    def load(self, modality: Modality, head: Sequence[Mapping[str, Any]] = (), **loading: Any) -> PreTrainedModel:
        """Load the part of the backbone that reads a modality, with the steps of a head if it has one.

        `loading` is as in `AutoModel.from_pretrained`.

        Raises:
            OSError, ValueError: When it cannot be loaded; see [`load_tower`].
        """
        path = self.path
        with explain_failures(path):
            tower = load_tower(path, modality, **{**loading, "revision": None, **self.place})
            if not head:
                return tower
            return attach_head(tower, head, load_head(path, head, **{**select(loading, ACCESS), **self.place}))

    def load_encoder(
        self, modality: Modality, *, quiet: bool = False, **loading: Any
    ) -> tuple[PreTrainedModel, "BackboneReference", SentenceEncoder | None]:
        """Load a backbone; return it, the reference to its folder, and its sentence encoder if it is one."""
        hub, reference = select(loading, ACCESS), self
        with explain_failures(self.path):
            pinned, encoder = self.pinned(**hub), None
            if modality.is_tokenized:
                encoder = find_sentence_encoder(pinned.path, quiet=quiet, **hub, **pinned.place)
        if encoder is not None:
            reference, pinned = self.inside(encoder.path), pinned.inside(encoder.path)
        return pinned.load(modality, encoder.head if encoder else (), **loading), reference, encoder

    def load_processor(self, modality: Modality, **hub: Any) -> Any:
        """Load the tokenizer or other processor of the backbone; `hub` as in `from_pretrained`.

        Raises:
            ValueError: When there is none.
        """
        loader, argument = modality.auto_processor, modality.processor_argument
        if self.name is None:
            raise ValueError(f"The model names no backbone to take the {argument} from; pass {argument}=...")
        try:
            path = self.path
            places: list[tuple[str, dict[str, Any]]] = [(path, self.place)]
            if self.subfolder is not None:  # many repositories have it beside the folder of the model
                places.append((path, replace(self, subfolder=None).place))
            with contextlib.suppress(OSError, ValueError):
                if (base := base_of_adapter(path, **select(hub, ACCESS), **self.place)) is not None:
                    places.append((base[0], {"revision": base[1]}))
            for source, place in places[:-1]:
                with contextlib.suppress(OSError, ValueError):
                    return load_auto(loader, source, **{**hub, **place})
            source, place = places[-1]
            return load_auto(loader, source, **{**hub, **place})
        except (OSError, ValueError) as err:
            raise ValueError(
                f'No {argument} can be loaded from the backbone "{self.name}"; pass {argument}=... ({err})'
            ) from err


def load_processor(model: Any) -> Any:
    """Load the processor of a composed model: the one saved with it, else that of its backbone.

    Raises:
        CorruptFileError: When the saved processor is damaged.
        ValueError: When there is none.
    """
    if model.origin.tokenizer is not None:
        return model.origin.tokenizer
    modality, hub, place = model.config.modality, model.origin.hub, dict(model.origin.task)
    name = place.pop("name", None)
    if name and any(find_file(name, file, **select(hub, ACCESS), **place) for file in modality.processor_files):
        return load_auto(modality.auto_processor, name, **{**hub, **place})
    return BackboneReference.from_config(model.config).load_processor(modality, **hub)


def choose_processor(model: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the processor of a model under its argument of the pipeline, of those given or loaded.

    Raises:
        TypeError: On anything but a processor.
        ValueError: On a processor for another modality, or when there is none to load.
    """
    modality = model.config.modality
    loader, argument = modality.auto_processor, modality.processor_argument
    if others := [name for name, value in given.items() if value is not None and name != argument]:
        raise ValueError(f"{others[0]} is given, but the model classifies {modality} inputs; give {argument}=...")
    processor = given[argument]
    if processor is None:
        return {argument: load_processor(model)}
    if isinstance(processor, (str, os.PathLike)):
        trusts = model.origin.hub.get("trust_remote_code")
        processor = load_auto(loader, as_source(processor, argument), trust_remote_code=trusts)
    if not modality.is_processor(processor):
        raise TypeError(
            f"{argument} is {shorten(processor)} of type {type(processor).__name__}; give a loaded one "
            f"({loader.__name__}.from_pretrained), its Hub id or its folder."
        )
    return {argument: processor}
