"""How `pipeline` loads a task or a backbone: another backbone, and errors that are ours to the user."""

import json
import pickle
import shutil
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.builders import build_backbone, build_tokenizer, make_examples, make_pipeline, save_backbone
from transformers import (
    AutoConfig,
    BertConfig,
    BertLMHeadModel,
    BertModel,
    EncoderDecoderModel,
    pipeline,
)

from transformers_tart import (
    TartAudioConfig,
    TartConfig,
    TartForSequenceClassification,
    TartImageConfig,
    TartReasonerConfig,
    View,
)
from transformers_tart.errors import BackboneNotFoundError, CorruptFileError


pytestmark = pytest.mark.core


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """A saved task whose backbone has moved from `old` to `new`."""
    base = save_backbone(tmp_path / "old")
    make_pipeline(base).save_pretrained(tmp_path / "task")
    shutil.move(base, tmp_path / "new")
    return tmp_path / "task"


def load(folder: Path | str, **options: Any) -> Any:
    """A pipeline of a folder."""
    return pipeline("tart-classification", model=str(folder), **options)


@pytest.mark.slow
def test__backbone__of_pipeline__used(task: Path) -> None:
    moved = task.parent / "new"
    expected = load(task, model_kwargs={"backbone": str(moved)})(["w1", "w2 w3"])
    for backbone in (str(moved), moved, build_backbone("llama")):
        assert load(task, backbone=backbone)(["w1", "w2 w3"]) == expected


def test__backbone__beside_what_needs_none__clear_error(task: Path) -> None:
    with pytest.raises(ValueError, match="not a TART task, so it is the backbone; leave backbone= out"):
        load(task.parent / "new", backbone="mini", examples=make_examples())
    with pytest.raises(ValueError, match="backbone is given with a model that is loaded already"):
        make_pipeline(backbone="mini")


def assert_first_and_last(error: BaseException) -> None:
    """An error of ours is the last of its chain, and its message begins with what is wrong."""
    shown = "".join(traceback.format_exception_only(error))
    assert "Could not load model" not in shown
    assert "with any of the following classes" not in "".join(traceback.format_exception(error))
    assert len(str(error).splitlines()) < 12


def test__load__backbone_is_gone__our_error_alone(task: Path) -> None:
    with pytest.raises(BackboneNotFoundError, match="which .* refers to, cannot be loaded") as caught:
        load(task)
    assert_first_and_last(caught.value)


def test__load__damaged_files__our_error_alone(task: Path) -> None:
    options = {"backbone": str(task.parent / "new")}
    path = task / "support.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CorruptFileError) as caught:
        load(task, **options)
    assert_first_and_last(caught.value)
    config = json.loads((task / "config.json").read_text())
    for change in ({"pooling": "sum"}, {"max_length": 0}, {"max_length": "7"}, {"normalize": 3}, {"layers": []}):
        (task / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(ValueError, match=next(iter(change))) as found:
            load(task, **options)
        assert_first_and_last(found.value)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [({"model_kwargs": {"pooling": "sum"}}, ValueError), ({"model_kwargs": {"protocol": 3}}, ValueError)],
)
def test__compose__wrong_argument__our_error_alone(arguments: dict, error: type[Exception], tmp_path: Path) -> None:
    with pytest.raises(error, match=next(iter(arguments["model_kwargs"]))) as caught:
        load(save_backbone(tmp_path), examples=make_examples(), **arguments)
    assert_first_and_last(caught.value)


@pytest.mark.slow
def test__load__device_map__the_model_stays_there(tmp_path: Path) -> None:
    base = save_backbone(tmp_path)
    classify = load(base, device_map={"": "cpu"}, examples=make_examples())
    assert classify.device == classify.model.device == torch.device("cpu")
    assert classify("w1") == load(base, examples=make_examples(), device="cpu")("w1")
    assert load(base, examples=make_examples(), dtype=torch.bfloat16).model.backbone.dtype == torch.bfloat16
    assert load(base, examples=make_examples(), local_files_only=True)("w1") == classify("w1")


@pytest.mark.parametrize("config_class", [TartConfig, TartImageConfig, TartAudioConfig, TartReasonerConfig])
def test__config__wrong_value__value_error_that_names_the_field(config_class: type, tmp_path: Path) -> None:
    of_all = {"pooling": 3, "views": 3, "has_support": "yes"}
    own = {TartConfig: {**of_all, "protocol": 3}, TartReasonerConfig: {"hidden_size": "x"}}
    wrong = own.get(config_class, of_all)
    for field, value in wrong.items():
        with pytest.raises(ValueError, match=field) as made:
            config_class(**{field: value})
        assert isinstance(made.value, TypeError)
        config = config_class()
        kept = getattr(config, field, None)
        if field != "pooling":  # which is no field but an argument
            with pytest.raises(ValueError, match=field):
                setattr(config, field, value)
        assert getattr(config, field, None) == kept
        config_class().save_pretrained(tmp_path)
        fields = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**fields, field: value}))
        for loader in (config_class, AutoConfig):
            with pytest.raises(ValueError, match=field):
                loader.from_pretrained(tmp_path)
    pickle.loads(pickle.dumps(config_class()))


def test__config__wrong_choice__our_message_alone() -> None:
    for make in (lambda: TartConfig(pooling="sum"), lambda: TartReasonerConfig(max_support=1)):
        with pytest.raises(ValueError, match=r"^(pooling|max_support) is"):
            make()
    config = TartConfig()
    config.views = [View(pooling="sum")]
    with pytest.raises(ValueError, match="^pooling is"):
        config.validate()


@pytest.mark.parametrize("names", [3, "ab", ["a", "b"], {"a": "b"}])
def test__config__names_that_are_none__clear_error(names: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="id2label"):
        TartConfig(id2label=names)
    TartConfig().save_pretrained(tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**fields, "id2label": names}))
    with pytest.raises(ValueError, match="id2label"):
        AutoConfig.from_pretrained(tmp_path)


def build_encoder_decoder() -> EncoderDecoderModel:
    """A tiny composition of an encoder and a decoder."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    torch.manual_seed(0)
    encoder = BertModel(BertConfig(**sizes, vocab_size=99))
    decoder = BertLMHeadModel(BertConfig(**sizes, vocab_size=99, is_decoder=True, add_cross_attention=True))
    model = EncoderDecoderModel(encoder=encoder, decoder=decoder)
    model.config.decoder_start_token_id, model.config.pad_token_id = 1, 0
    return model.eval()


@pytest.mark.slow
def test__encoder_decoder__object__task_reloads(tmp_path: Path) -> None:
    classify = make_pipeline(TartForSequenceClassification.from_backbone(build_encoder_decoder()))
    expected = classify(["w1", "w2 w3"], top_k=None)
    classify.save_pretrained(tmp_path, include_backbone=True)
    assert load(tmp_path)(["w1", "w2 w3"], top_k=None) == expected


@pytest.mark.slow
def test__encoder_decoder__folder__task_reloads(tmp_path: Path) -> None:
    build_encoder_decoder().save_pretrained(tmp_path / "base")
    build_tokenizer().save_pretrained(tmp_path / "base")
    composed = TartForSequenceClassification.from_backbone(tmp_path / "base")
    assert isinstance(composed.backbone, BertModel)
    classify = load(tmp_path / "base", examples=make_examples())
    expected = classify(["w1", "w2 w3"], top_k=None)
    assert make_pipeline(composed)(["w1", "w2 w3"], top_k=None) == expected
    for i, options in enumerate(({}, {"include_backbone": True})):
        classify.save_pretrained(tmp_path / str(i), **options)
        assert load(tmp_path / str(i))(["w1", "w2 w3"], top_k=None) == expected


EVALUATION = {
    "before": "import evaluate, transformers_tart.evaluation as e",
    "after": "import transformers_tart.evaluation as e, evaluate",
    "twice": "import transformers_tart.evaluation as e, importlib, evaluate; importlib.reload(e)",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "order", ["before", "after", pytest.param("twice", marks=[pytest.mark.exhaustive, pytest.mark.slow])]
)
def test__evaluation__imported__evaluator_by_name(order: str) -> None:
    code = f'{EVALUATION[order]}; assert type(evaluate.evaluator("tart-classification")) is e.TartEvaluator'
    subprocess.run([sys.executable, "-W", "error::ImportWarning", "-c", code], check=True, timeout=300)


@pytest.mark.slow
def test__evaluation__without_evaluate__imports_and_costs_nothing() -> None:
    code = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "evaluate":
            raise ModuleNotFoundError(name, name=name)
import transformers_tart
before = set(sys.modules)
sys.meta_path.insert(0, Blocked())
import transformers_tart.evaluation
new = {name for name in set(sys.modules) - before if not name.startswith("transformers_tart.evaluation")}
assert not new, new
from transformers_tart.errors import MissingPackageError
for name in transformers_tart.evaluation.__all__:
    try:
        getattr(transformers_tart.evaluation, name)
    except MissingPackageError as err:
        assert str(err) == f"{name} needs the package evaluate: pip install 'transformers-tart[evaluation]'.", err
    else:
        raise AssertionError(name)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
