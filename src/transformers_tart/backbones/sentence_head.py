"""Heads of sentence encoders: their modules between the pooling and the last normalization, a part of the backbone.

A head is described by fields in the config of the backbone, so that the digest guards its settings and weights.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_NAME, output_capturing

from transformers_tart.checks.arguments import as_flag, shorten
from transformers_tart.checks.bounds import check_inside, check_integer
from transformers_tart.errors import CorruptFileError
from transformers_tart.loading.download import explain_damage, find_file
from transformers_tart.loading.weights import check_not_pickled


HEAD, PATHS = "sentence_head", "sentence_head_paths"  # fields of the config; the first is the module too
MOST_FEATURES = 2**17
MOST_STEPS = 16
EMBEDDING = "sentence_embedding"
# Functions of torch.nn that need no argument and keep the shape.
ACTIVATIONS = (
    *("ELU", "GELU", "Hardsigmoid", "Hardswish", "Hardtanh", "Identity", "LeakyReLU", "LogSigmoid", "Mish", "ReLU"),
    *("ReLU6", "SELU", "SiLU", "Sigmoid", "Softplus", "Softsign", "Tanh", "Tanhshrink"),
)


class Dense(nn.Module):
    """Dense of sentence-transformers: a linear layer, an activation and perhaps a residual connection."""

    def __init__(self, in_features: int, out_features: int, bias: bool, activation_function: str, use_residual: bool):
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias=bias)
        self.activation_function = getattr(nn, activation_function)()
        self.use_residual = use_residual
        if use_residual and in_features != out_features:
            self.residual = nn.Linear(in_features, out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map embeddings (n, in_features) to (n, out_features)."""
        out = self.activation_function(self.linear(x))
        return out + (self.residual(x) if hasattr(self, "residual") else x) if self.use_residual else out


class LayerNorm(nn.Module):
    """LayerNorm of sentence-transformers."""

    def __init__(self, dimension: int):
        super().__init__()
        self.norm = nn.LayerNorm(dimension)

    def forward(self, x: Tensor) -> Tensor:
        """Normalize embeddings (n, dimension)."""
        return self.norm(x)


class Normalize(nn.Module):
    """Normalize of sentence-transformers, to a Euclidean norm of 1."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize embeddings (n, hidden)."""
        return normalize(x, dim=-1)


STEPS: dict[str, Callable[..., nn.Module]] = {"Dense": Dense, "LayerNorm": LayerNorm, "Normalize": Normalize}


def read_step(kind: str, path: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the description of a step from the settings of a module, as the library writes them.

    Raises:
        ValueError: When this package does not have the step.
    """
    names = [settings.get(f"module_{side}_name") or EMBEDDING for side in ("input", "output")]
    if kind not in STEPS or names != [EMBEDDING, EMBEDDING]:
        raise ValueError(f"goes on with {kind if kind not in STEPS else f'a {kind} of {shorten(names)}'}")
    step: dict[str, Any] = {"type": kind, "path": path}
    if kind == "LayerNorm":
        step["dimension"] = settings.get("dimension")
    elif kind == "Dense":
        function = str(settings.get("activation_function") or "torch.nn.Tanh")
        name = function.rpartition(".")[2]
        if not function.startswith("torch.nn.") or name not in ACTIVATIONS:
            raise ValueError(f"has the activation function {shorten(function)}")
        step |= {name: settings.get(name) for name in ("in_features", "out_features")}
        step |= {"bias": settings.get("bias", True), "use_residual": settings.get("use_residual", False)}
        step["activation_function"] = name
    return step


def head_of(config: Any) -> list[dict[str, Any]]:
    """Return the steps of the head that a config of a backbone describes; none for other backbones."""
    fields = config if isinstance(config, Mapping) else vars(config)
    steps, paths = fields.get(HEAD) or [], fields.get(PATHS) or []
    if len(steps) != len(paths) or not all(isinstance(step, Mapping) for step in steps):
        raise ValueError(f"{HEAD} of the backbone has {len(steps)} steps, and {PATHS} {len(paths)} folders.")
    return [{**step, "path": path} for step, path in zip(steps, paths, strict=True)]


def build_head(steps: Sequence[Mapping[str, Any]]) -> nn.Sequential:
    """Build a head with random weights.

    Raises:
        ValueError: When it has too many steps, or one is none of this package.
    """
    if len(steps) > MOST_STEPS:
        raise ValueError(f"A sentence encoder has {len(steps)} modules after its pooling; at most {MOST_STEPS} do.")
    modules = []
    for step in steps:
        settings = {name: value for name, value in step.items() if name not in ("type", "path")}
        for name, value in settings.items():
            if name in ("in_features", "out_features", "dimension"):
                check_integer(name, value, 1, MOST_FEATURES)
            elif name != "activation_function":
                as_flag(value, name)
            elif value not in ACTIVATIONS:
                raise ValueError(f"{name} is {shorten(value)}; it must be one of {ACTIVATIONS}.")
        if step.get("type") not in STEPS:
            raise ValueError(f"A step is of type {shorten(step.get('type'))}; it must be one of {tuple(STEPS)}.")
        modules.append(STEPS[step["type"]](**settings))
    return nn.Sequential(*modules)


def load_head(
    name: str, steps: Sequence[Mapping[str, Any]], subfolder: str | None = None, **hub: Any
) -> nn.Sequential:
    """Load a head, in float32, from the folders of its steps in a repository.

    Args:
        name (`str`), hub:
            As in `cached_file` of transformers.
        steps (`list[dict]`):
            Steps, from [`read_step`].
        subfolder (`str`, *optional*):
            Folder of the transformer; the steps are in it or beside it.

    Raises:
        CorruptFileError: When weights are missing, pickled, or of other shapes.
    """
    with torch.device("meta"):
        head = build_head(steps)
    for module, step in zip(head, steps, strict=True):
        if not module.state_dict():
            continue
        path = check_inside(f"The folder of the {step['type']} module", step["path"])
        inside = PurePosixPath(subfolder or "")
        places = [str(folder / path) for folder in (inside, *inside.parents)]
        found = (find_file(name, f"{place}/{SAFE_WEIGHTS_NAME}", **hub) for place in places)
        file = next((each for each in found if each is not None), None)
        if file is None:
            for place in places:
                check_not_pickled(name, **{**hub, "subfolder": place})
            raise CorruptFileError(f"{name} has no {path}/{SAFE_WEIGHTS_NAME}; download the repository again.")
        with explain_damage(name):
            weights = {key: tensor.float() for key, tensor in load_file(file).items()}
            module.load_state_dict(weights, assign=True)
    return head


def attach_head(backbone: PreTrainedModel, steps: Sequence[Mapping[str, Any]], head: nn.Sequential) -> PreTrainedModel:
    """Give a backbone a head, and its config the description; return the backbone."""
    backbone.add_module(HEAD, head.to(backbone.device).eval())
    settings = [{name: value for name, value in step.items() if name != "path"} for step in steps]
    setattr(backbone.config, HEAD, settings)
    setattr(backbone.config, PATHS, [step["path"] for step in steps])
    return backbone


def share_modules(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy of a model that shares its modules and weights, and may get a head of its own."""
    if output_capturing._CAN_RECORD_REGISTRY.get(model):  # each would install hooks of its own on what they share
        output_capturing.maybe_install_capturing_hooks(model)
    copied = copy.copy(model)
    copied._modules, copied.config = dict(model._modules), copy.copy(model.config)
    return copied


def apply_head(backbone: nn.Module, is_asked: bool, pooled: Tensor) -> Tensor:
    """Return pooled states (n, hidden), or, if asked, what the head of the backbone makes of them, in float32."""
    if not is_asked:
        return pooled
    head = getattr(backbone, HEAD, None)
    if head is None:
        raise ValueError(
            "A view reads the head of a sentence encoder, and the backbone has none: give a repository of "
            "sentence-transformers or a SentenceTransformer, or a View(head=False)."
        )
    like = next(head.parameters(), pooled)
    with torch.no_grad():
        return head(pooled.to(like.device, like.dtype)).float()


def save_backbone(backbone: PreTrainedModel, folder: Path, **options: Any) -> None:
    """Save a backbone as its `save_pretrained` does, and each step of its head to a folder inside."""
    head, steps = getattr(backbone, HEAD, None), head_of(backbone.config)
    if head is None:
        backbone.save_pretrained(folder, **options)
        return
    own = {name: x for name, x in backbone.state_dict().items() if not name.startswith(f"{HEAD}.")}
    backbone.save_pretrained(folder, state_dict=own, **options)
    for module, step in zip(head, steps, strict=True):
        if weights := {name: x.detach().cpu().contiguous() for name, x in module.state_dict().items()}:
            (folder / step["path"]).mkdir(parents=True, exist_ok=True)
            save_file(weights, folder / step["path"] / SAFE_WEIGHTS_NAME)
