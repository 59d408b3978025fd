"""Configurations: round trips, defaults, and the checks of their fields."""

import ast
import copy
import json
from pathlib import Path

import pytest
from transformers import AutoConfig, BertConfig, GPT2Config

from transformers_tart import TartAudioConfig, TartConfig, TartImageConfig, TartReasonerConfig, configuration_tart
from transformers_tart.inputs.views import View


pytestmark = pytest.mark.core


REASONER_FIELDS = [
    {},
    {"architecture": "gpt2", "n_positions": 34, "num_components": 8},
    {"ridge_strengths": [0.5], "kernel_sharpness": [0.0], "num_softmax_heads": 1, "intermediate_size": 10},
    {"max_support": 50, "max_classes": 2, "projection": "whitened_pca"},
]
TART_FIELDS = [
    {},
    {"text_config": {"model_type": "bert", "hidden_size": 32}, "base_model_name_or_path": "org/base"},
    {"base_model_revision": "main", "include_backbone": True, "has_support": True, "max_length": 7},
    {"pooling": "first", "normalize": True, "base_model_subfolder": "0_Transformer"},
    {"pooling": "last", "layers": -2, "reasoner_config": {"architecture": "gpt2"}, "id2label": {0: "ham", 1: "spam"}},
]


@pytest.mark.parametrize("fields", REASONER_FIELDS)
def test__reasoner_config__saved_and_loaded__same(fields: dict, tmp_path: Path) -> None:
    config = TartReasonerConfig(**fields)
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(loaded, TartReasonerConfig)
    assert loaded.to_dict() | {"_name_or_path": ""} == config.to_dict()


@pytest.mark.parametrize("fields", TART_FIELDS)
def test__tart_config__saved_and_loaded__same(fields: dict, tmp_path: Path) -> None:
    config = TartConfig(**fields)
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(loaded, TartConfig)
    assert loaded.to_dict() | {"_name_or_path": ""} == config.to_dict()
    assert copy.deepcopy(config).to_dict() == config.to_dict()


def test__tart_config__sub_configs_as_dicts__become_configs() -> None:
    config = TartConfig(text_config={"model_type": "bert", "hidden_size": 32}, reasoner_config={"hidden_size": 8})
    assert isinstance(config.text_config, BertConfig)
    assert config.get_text_config().hidden_size == 32
    assert isinstance(config.reasoner_config, TartReasonerConfig)
    assert config.reasoner_config.intermediate_size == 32


def test__tart_config__nothing_given__no_backbone_and_default_reasoner() -> None:
    config = TartConfig()
    assert config.text_config is None
    assert config.reasoner_config.to_diff_dict() == TartReasonerConfig().to_diff_dict()
    assert (config.protocol, config.views) == ("stream", (View("mean", layers="all"),))


@pytest.mark.parametrize(("architecture", "projection"), [("kernel", "clipped"), ("gpt2", "whitened_pca")])
def test__reasoner_config__projection_not_given__follows_architecture(architecture: str, projection: str) -> None:
    assert TartReasonerConfig(architecture=architecture).projection == projection


@pytest.mark.parametrize("config_class", [TartConfig, TartReasonerConfig])
def test__from_pretrained__field_of_a_later_version__is_kept(config_class: type, tmp_path: Path) -> None:
    config_class().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "field_of_tomorrow": 3}))
    assert AutoConfig.from_pretrained(tmp_path).field_of_tomorrow == 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"projection": "pca"}, "must be one of .*'none', 'clipped', 'whitened_pca'"),
        ({"ridge_strengths": [1.0, 0.0]}, "ridge_strengths must be positive"),
        ({"kernel_sharpness": [-1.0]}, r"kernel_sharpness is \[-1.0\]; it must be .* at least 0"),
        ({"max_support": 1}, "max_support is 1; it must be an integer from 2"),
        ({"max_classes": 1}, "max_classes is 1; it must be an integer from 2"),
        ({"hidden_size": "wide"}, "hidden_size"),
    ],
)
def test__reasoner_config__invalid_field__says_what_is_allowed(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TartReasonerConfig(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"protocol": "brook"}, "protocol is .brook.; it must be one of .*'stream'"),
        ({"pooling": "sum"}, "pooling is .sum.; it must be one of .*'mean', 'last'"),
        ({"layers": "some"}, 'layers is .some.; it must be an index, a slice .*, "late" or "all"'),
        ({"max_length": 0}, "max_length is 0; it must be at least 1, or None"),
        ({"layers": 0.5}, "layers"),
    ],
)
def test__tart_config__invalid_field__says_what_is_allowed(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TartConfig(**fields)


def test__tart_config__invalid_field_set_later__cannot_be_saved(tmp_path: Path) -> None:
    config = TartConfig(text_config=GPT2Config().to_dict())
    config.views = [View(pooling="sum")]
    with pytest.raises(ValueError, match="pooling is 'sum'; it must be one of"):
        config.save_pretrained(tmp_path)
    config.views = ()
    with pytest.raises(ValueError, match="views has 0 views; give 1 to 64"):
        config.save_pretrained(tmp_path)


@pytest.mark.parametrize("field", ["pooling", "layers", "normalize", "template"])
def test__tart_config__field_of_version_0_1_set_later__refused_instead_of_ignored(field: str, tmp_path: Path) -> None:
    config = TartConfig(text_config=GPT2Config().to_dict())
    setattr(config, field, "last")
    message = rf"config.{field} is set to 'last', but the views .* set config.views = \[View\({field}=..., ...\)\]"
    with pytest.raises(ValueError, match=message):
        config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        _ = config.embedding_options
    delattr(config, field)
    assert config.embedding_options.views == (View("mean", layers="all"),)


@pytest.mark.parametrize("config_class", [TartImageConfig, TartAudioConfig])
def test__media_config__fields_of_texts_at_their_defaults__dropped(config_class: type, tmp_path: Path) -> None:
    config_class().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    saved = json.loads(path.read_text())
    assert not saved.keys() & {"protocol", "template", "max_length"}
    path.write_text(json.dumps({**saved, "protocol": "stream", "template": None, "max_length": None}))
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert not any(hasattr(loaded, name) for name in ("protocol", "template", "max_length"))
    assert (loaded.embedding_options.protocol, loaded.embedding_options.max_length) == ("stream", None)


@pytest.mark.parametrize("config_class", [TartImageConfig, TartAudioConfig])
@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("protocol", "vanilla", "protocol is 'vanilla'; .* inputs are embedded each alone"),
        ("template", "{text}{label}", "inputs are embedded each alone: .* without a template"),
        ("max_length", 7, "max_length is 7, which is for texts, not for"),
    ],
)
def test__media_config__field_of_texts__refused_given_or_set(
    config_class: type, field: str, value: object, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        config_class(**{field: value})
    config = config_class()
    setattr(config, field, value)
    with pytest.raises(ValueError, match=message):
        config.validate()


def test__configuration_module__source__imports_no_torch() -> None:
    tree = ast.parse(Path(configuration_tart.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {getattr(node, "module", None) or alias.name for node in imports for alias in node.names}
    assert not any(name.split(".")[0] == "torch" for name in names)


@pytest.mark.parametrize(("fields", "layers"), [({}, 0), ({"architecture": "gpt2"}, 4), ({"num_hidden_layers": 3}, 3)])
def test__reasoner_config__number_of_layers__as_given_or_as_the_architecture_needs(fields: dict, layers: int) -> None:
    assert TartReasonerConfig(**fields).num_hidden_layers == layers
