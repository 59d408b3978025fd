"""Files made to take memory, leave the repository, run code or load without end: each an error at once."""

import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.builders import build_reasoner, build_tokenizer, make_pipeline, save_backbone
from helpers.hostile import edit
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file, save_file
from transformers import AutoModel, pipeline

from transformers_tart import SupportSet, TartConfig, TartForSequenceClassification, TartReasoner, TartReasonerConfig
from transformers_tart.backbones.reference import BackboneReference
from transformers_tart.backbones.sentence_encoders import find_sentence_encoder
from transformers_tart.conversion import convert_reference_checkpoint
from transformers_tart.errors import CorruptFileError
from transformers_tart.support import METADATA_KEY
from transformers_tart.training.checkpoints import load_checkpoint


INVALID = (ValueError, StrictDataclassError)
HUGE = 10**6


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone, a reasoner, and a task with its backbone and one that refers to it."""
    folder = tmp_path_factory.mktemp("saved")
    model = TartForSequenceClassification.from_backbone(save_backbone(folder / "base"), build_reasoner())
    classify = make_pipeline(model)
    classify.save_pretrained(folder / "task")
    classify.save_pretrained(folder / "whole", include_backbone=True)
    build_reasoner().save_pretrained(folder / "reasoner")
    return folder


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    """A copy of them, in which the task refers to the copy of the backbone."""
    shutil.copytree(saved, tmp_path / "copy")
    edit(tmp_path / "copy" / "task" / "config.json", base_model_name_or_path=str(tmp_path / "copy" / "base"))
    return tmp_path / "copy"


class Code:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize(("field", "value"), [
    ("num_hidden_layers", HUGE), ("num_hidden_layers", -1), ("hidden_size", 2**40), ("hidden_size", 0),
    ("intermediate_size", 2**40), ("head_dim", 2**40), ("num_softmax_heads", 2**40), ("n_positions", 2**40),
    ("num_components", 2**40), ("num_orders", 2**40), ("max_support", 2**60), ("max_classes", 2**40),
    ("num_attention_heads", 0), ("kernel_sharpness", [1.0] * 2**16), ("kernel_sharpness", [float("nan")]),
    ("kernel_sharpness", [float("inf")]), ("kernel_sharpness", []), ("ridge_strengths", [float("inf")]),
    ("ridge_strengths", [1e300]), ("layer_norm_eps", float("nan")), ("initializer_range", float("inf")),
    ("dtype", "abs"), ("to_dict", 1), ("quantization_config", {"quant_method": "bitsandbytes"}),
    ("transformers_weights", "adapter_model.bin"), ("attn_implementation", "org/kernel"),
])  # fmt: skip
def test__reasoner_config__value_out_of_bounds__names_the_field(field: str, value: Any) -> None:
    with pytest.raises(INVALID, match=field):
        TartReasonerConfig(**{field: value})


def test__reasoner_config__heads_that_do_not_divide_the_width__says_so() -> None:
    with pytest.raises(INVALID, match="num_attention_heads=3 does not divide"):
        TartReasonerConfig(architecture="gpt2", hidden_size=32, num_attention_heads=3)


@pytest.mark.parametrize(("field", "value"), [
    ("id2label", {str(i): "a" for i in range(3)}), ("id2label", {"x": "a"}), ("id2label", {"0": "a", "2": "b"}),
    ("id2label", {"0": 1, "1": 2}), ("id2label", {"0": "a" * 2**17, "1": "b"}), ("layers", 2**40),
    ("max_length", 2**60), ("template", "{text}{label}" + "x" * 2**21), ("base_model_subfolder", "../other"),
    ("base_model_subfolder", "/etc"), ("base_model_subfolder", "a/../../b"), ("base_model_subfolder", "..\\b"),
    ("base_model_subfolder", "C:/x"), ("base_model_subfolder", "~/x"), ("base_model_subfolder", "a\0b"),
    ("base_model_subfolder", "x" * 2**12), ("base_model_name_or_path", "a\0b"), ("base_model_name_or_path", ""),
    ("text_config", {"model_type": "tart"}), ("text_config", {"model_type": "tart_reasoner"}), ("dtype", "load"),
    ("validate_embedding", 1), ("__class__", "x"), ("quantization_config", {"quant_method": "gptq"}),
])  # fmt: skip
def test__tart_config__value_out_of_bounds__names_the_field(field: str, value: Any) -> None:
    protocol = {"protocol": "vanilla"} if field == "template" else {}
    with pytest.raises(INVALID, match=field):
        TartConfig(**{field: value}, **protocol)


def test__tart_config__many_classes_and_long_names__accepted() -> None:
    config = TartConfig(id2label={i: f"class {i} {'x' * 50}" for i in range(100_000)})
    assert config.num_labels == 100_000


def test__tart_config__nested_in_itself__refused_at_the_first() -> None:
    fields: dict[str, Any] = {"model_type": "tart"}
    for _ in range(300):
        fields = {"model_type": "tart", "text_config": fields}
    with pytest.raises(ValueError, match="text_config is of model type"):
        TartConfig(**fields)


@pytest.mark.parametrize(
    "content", ["[" * 10**5, '{"a":' * 10**5, "[1]", "null", '"x"', '{"a": ' + "[" * 200 + "]" * 200 + "}"]
)
@pytest.mark.parametrize("part", ["task", "reasoner", "base"])
def test__load__config_is_no_flat_object__says_so(part: str, content: str, copied: Path) -> None:
    (copied / part / "config.json").write_text(content)
    load: Callable = (
        TartReasoner.from_pretrained if part == "reasoner" else TartForSequenceClassification.from_pretrained
    )
    with pytest.raises(CorruptFileError, match=r"config.json of .*(nested deeper|no JSON object|no valid JSON)"):
        load(copied / ("reasoner" if part == "reasoner" else "task"))


@pytest.mark.parametrize(("field", "value"), [
    ("num_hidden_layers", HUGE), ("num_hidden_layers", 900), ("hidden_size", 2**16), ("head_dim", 2**14),
    ("intermediate_size", 2**18), ("num_softmax_heads", 2**12),
])  # fmt: skip
@pytest.mark.parametrize("part", ["task", "reasoner"])
def test__load__reasoner_larger_than_its_weights__fails_at_once(
    part: str, field: str, value: int, copied: Path
) -> None:
    path = copied / part / "config.json"
    config = json.loads(path.read_text())
    (config["reasoner_config"] if part == "task" else config)[field] = value
    path.write_text(json.dumps(config))
    load: Callable = AutoModel.from_pretrained if part == "task" else TartReasoner.from_pretrained
    with pytest.raises((*INVALID, CorruptFileError), match=f"{field}|do not fit its config"):
        load(copied / part)


@pytest.mark.parametrize(("field", "value"), [
    ("num_hidden_layers", HUGE), ("hidden_size", 2**24), ("vocab_size", 10**12), ("intermediate_size", 2**40),
])  # fmt: skip
def test__from_backbone__config_larger_than_its_weights__fails_at_once(field: str, value: int, copied: Path) -> None:
    edit(copied / "base" / "config.json", **{field: value})
    with pytest.raises(CorruptFileError, match=f"{field}={value}|describes a model of|cannot be loaded"):
        TartForSequenceClassification.from_backbone(copied / "base")


@pytest.mark.parametrize("change", ["nan", "inf", "integers", "complex"])
def test__load__reasoner_weights_that_are_no_numbers__names_them(change: str, copied: Path) -> None:
    weights = load_file(copied / "reasoner" / "model.safetensors")
    name = "architecture.temperature.weight"
    changed = {
        "nan": torch.full_like(weights[name], torch.nan),
        "inf": torch.full_like(weights[name], -torch.inf),
        "integers": torch.ones_like(weights[name], dtype=torch.int64),
        "complex": torch.ones_like(weights[name], dtype=torch.complex64),
    }
    save_file({**weights, name: changed[change]}, copied / "reasoner" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CorruptFileError, match=name):
        TartReasoner.from_pretrained(copied / "reasoner")


def test__load__task_that_names_itself_or_another_task__refused(copied: Path) -> None:
    shutil.copytree(copied / "task", copied / "other")
    for base in ("task", "other", "reasoner"):
        edit(copied / "task" / "config.json", base_model_name_or_path=str(copied / base))
        edit(copied / "other" / "config.json", base_model_name_or_path=str(copied / "task"))
        with pytest.raises(ValueError, match="is a TART model or reasoner, not a backbone"):
            AutoModel.from_pretrained(copied / "task")


@pytest.mark.parametrize("name", ["../../etc", "/etc", "./base", "~/base", "..\\x", "a/b/c"])
def test__check_origin__task_of_the_hub_that_names_a_path__refused(name: str) -> None:
    with pytest.raises(ValueError, match="a path and not a repository of the Hub"):
        BackboneReference(name).check_origin("org/task")
    BackboneReference("org/base").check_origin("org/task")
    BackboneReference("mini").check_origin("org/task")


@pytest.mark.parametrize("part", ["base", "whole/backbone", "reasoner", "task"])
def test__load__only_pickled_weights__says_what_to_do(part: str, copied: Path, tmp_path: Path) -> None:
    folder = copied / part
    (folder / "model.safetensors").unlink()
    with (folder / "pytorch_model.bin").open("wb") as file:
        pickle.dump({"weight": Code(tmp_path / "mark")}, file)
    roots = {"base": "task", "whole/backbone": "whole"}
    load: Callable = TartReasoner.from_pretrained if part == "reasoner" else AutoModel.from_pretrained
    with pytest.raises(CorruptFileError, match=r"pytorch_model.bin, a pickle, which this package does not read"):
        load(copied / roots.get(part, part))
    if part == "base":
        with pytest.raises((OSError, ValueError), match="which this package does not read"):
            pipeline("tart-classification", model=str(copied / "task"), tokenizer=build_tokenizer())
        with pytest.raises(ValueError, match="this package unpickles no weights"):
            TartForSequenceClassification.from_backbone(folder, use_safetensors=False)
    assert not (tmp_path / "mark").exists()


def shard(folder: Path, **index: Any) -> None:
    """Write the weights of a folder as one shard, with an index."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    weight_map = dict.fromkeys(weights, "model-00001-of-00001.safetensors")
    fields = {"metadata": {"total_size": 1}, "weight_map": weight_map, **index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(fields))


@pytest.mark.parametrize("name", [
    "../outside.safetensors", "/etc/passwd", "..\\outside.safetensors", "a/../../outside.safetensors",
    "a\0.safetensors", "pytorch_model.bin", 7, None, ["x"], "C:/x.safetensors", "~/x.safetensors",
    "missing.safetensors",
])  # fmt: skip
def test__load__shard_outside_or_no_safetensors__refused(name: Any, copied: Path) -> None:
    shutil.copy(copied / "base" / "model.safetensors", copied / "outside.safetensors")
    shard(copied / "base")
    TartForSequenceClassification.from_backbone(copied / "base")  # the index as it should be
    path = copied / "base" / "model.safetensors.index.json"
    weight_map = json.loads(path.read_text())["weight_map"]
    edit(path, weight_map={**weight_map, next(iter(weight_map)): name})
    with pytest.raises(CorruptFileError, match=r"index.json of .* names"):
        TartForSequenceClassification.from_backbone(copied / "base")


@pytest.mark.parametrize("index", [{"weight_map": 3}, {"weight_map": {}}, {"metadata": None}, {"metadata": [1]}])
def test__load__index_that_is_none__refused(index: dict, copied: Path) -> None:
    shard(copied / "base", **index)
    with pytest.raises(CorruptFileError, match="is no index of weights"):
        TartForSequenceClassification.from_backbone(copied / "base")


def test__load__header_that_announces_more_than_the_file_holds__refused(copied: Path) -> None:
    header = json.dumps({"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    for content in (struct.pack("<Q", len(header)) + header, struct.pack("<Q", 2**62) + header):
        (copied / "task" / "model.safetensors").write_bytes(content)
        with pytest.raises(CorruptFileError, match="are damaged"):
            AutoModel.from_pretrained(copied / "task")


@pytest.mark.parametrize("path", [".", "~/x", "C:\\x", "a\0b", "x" * 5000, "a/../..", "/"])
def test__find_sentence_encoder__odd_path__stays_inside(path: str, copied: Path) -> None:
    kinds = ("sentence_transformers.models.Transformer", "sentence_transformers.models.Pooling")
    modules = [{"idx": i, "name": str(i), "path": path, "type": kind} for i, kind in enumerate(kinds)]
    (copied / "base" / "modules.json").write_text(json.dumps(modules))
    if path == ".":
        assert find_sentence_encoder(str(copied / "base")).path == ""
        return
    with pytest.raises(ValueError, match="modules.json of .* names the path"):
        TartForSequenceClassification.from_backbone(copied / "base")


PROMPT = {"ids": [1, 2], "question": [[[1]], [2], 3], "special": [], "room": None}


@pytest.mark.parametrize(("facts", "tensors"), [
    ({"label_names": ["a", "a"]}, {}),
    ({"label_names": ["a", 1]}, {}),
    ({"label_names": "ab"}, {}),
    ({"label_names": {"a": 1, "b": 2}, "texts": 5}, {}),
    ({"prompt": {**PROMPT, "ids": [2**40]}}, {}),
    ({"prompt": {**PROMPT, "ids": [1.5]}}, {}),
    ({"prompt": {**PROMPT, "ids": [True]}}, {}),
    ({"prompt": {**PROMPT, "ids": "12"}}, {}),
    ({"prompt": {**PROMPT, "question": [[[1]], [2], -1]}}, {}),
    ({"prompt": {**PROMPT, "room": 2**60}}, {}),
    ({"prompt": [1]}, {}),
    ({}, {"embeddings": torch.ones(4, 3, dtype=torch.int64)}),
    ({}, {"embeddings": torch.ones(4, 0)}),
    ({}, {"embeddings": torch.ones(4, 3, dtype=torch.complex64)}),
    ({"deep": json.loads("[" * 300 + "]" * 300)}, {}),
])  # fmt: skip
def test__support_set__hostile_content__clear_error(facts: dict, tensors: dict, tmp_path: Path) -> None:
    tensors = {"embeddings": torch.randn(4, 3), "labels": torch.tensor([0, 1, 0, 1]), **tensors}
    metadata = {METADATA_KEY: json.dumps({"label_names": ["a", "b"], **facts})}
    save_file(tensors, tmp_path / "support.safetensors", metadata=metadata)
    with pytest.raises(CorruptFileError, match="is no readable support set"):
        SupportSet.load(tmp_path / "support.safetensors")


def test__load__support_set_of_other_classes_than_the_config__refused(copied: Path) -> None:
    edit(copied / "task" / "config.json", id2label={"0": "a", "1": "b", "2": "c"}, label2id={"a": 0, "b": 1, "c": 2})
    with pytest.raises(CorruptFileError, match="has 2 classes, id2label of its config.json 3"):
        AutoModel.from_pretrained(copied / "task")


def test__load__prompt_beyond_the_vocabulary__refused(copied: Path) -> None:
    model = TartForSequenceClassification.from_backbone(copied / "base", build_reasoner(), protocol="vanilla")
    make_pipeline(model).save_pretrained(copied / "prompted")
    path = copied / "prompted" / "support.safetensors"
    support = SupportSet.load(path)
    prompt = replace(support.prompt, ids=(10**6, *support.prompt.ids[1:]))
    replace(support, prompt=prompt).save(path)
    with pytest.raises(CorruptFileError, match="has the token id 1000000, beyond the"):
        AutoModel.from_pretrained(copied / "prompted")


SIZES = {"n_dims": 4, "n_positions": 8, "n_embd": 16, "n_layer": 1, "n_head": 2}


@pytest.mark.slow
def test__conversion__hostile_files__never_run_and_say_so(tmp_path: Path) -> None:
    path, mark = tmp_path / "head.pt", tmp_path / "mark"
    torch.save({"_backbone.x": Code(mark)}, path)
    with pytest.raises(CorruptFileError, match="cannot be read as a file of tensors"):
        convert_reference_checkpoint(path, SIZES)
    path.write_bytes(pickle.dumps({"_backbone.x": Code(mark)}))
    with pytest.raises(CorruptFileError, match="cannot be read as a file of tensors"):
        convert_reference_checkpoint(path, SIZES)
    assert not mark.exists()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("head/data.pkl", b"\0" * 2**27)
    with pytest.raises(CorruptFileError, match="declares 134217728 bytes, more than it holds"):
        convert_reference_checkpoint(path, SIZES)
    torch.save({"_backbone.wpe.weight": torch.zeros(1), "_read_in.weight": torch.full((16, 4), torch.nan)}, path)
    with pytest.raises(ValueError, match="describe different heads"):
        convert_reference_checkpoint(path, SIZES)


class Nothing:
    """An accelerator that must not be asked."""

    def load_state(self, folder: str) -> None:
        raise AssertionError(folder)


def test__checkpoint__pickled_states_of_a_stranger__never_loaded(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-1"
    folder.mkdir()
    for content in ("", "[]", '{"states": 5}', "[" * 10**5):
        (folder / "states.json").write_text(content)
        (folder / "custom_checkpoint_0.pkl").write_bytes(pickle.dumps(Code(tmp_path / "mark")))
        with pytest.raises(CorruptFileError, match=r"checkpoint-1"):
            load_checkpoint(Nothing(), tmp_path)  # type: ignore[arg-type]
    assert not (tmp_path / "mark").exists()


def test__load__what_is_whole__still_loads(copied: Path) -> None:
    classify = pipeline("tart-classification", model=str(copied / "whole"))
    expected = classify("w1 w2", top_k=None)
    assert pipeline("tart-classification", model=str(copied / "task"))("w1 w2", top_k=None) == expected
