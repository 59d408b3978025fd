"""Modalities: the records of this package, and one that is registered from outside of it."""

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.builders import shared_reasoner
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    FeatureExtractionMixin,
    PreTrainedConfig,
    PreTrainedModel,
    pipeline,
)
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput

from transformers_tart.backbones.model_inputs import check_features
from transformers_tart.checks.strict_config import plain_errors
from transformers_tart.configuration_tart import TartBaseConfig, sub_configs
from transformers_tart.inputs.modality import AUDIO, IMAGE, MODALITIES, TEXT, Modality
from transformers_tart.modeling_tart import TartMediaModel


pytestmark = pytest.mark.core

WIDTH = 4  # of the rows


class RowsProcessor(FeatureExtractionMixin):
    """The processor of the toy backbone: scales rows of numbers."""

    model_input_names = ["rows"]

    def __init__(self, scale: float = 1.0, **kwargs: Any):
        super().__init__(scale=scale, **kwargs)

    def __call__(self, rows: np.ndarray, return_tensors: str = "pt") -> dict[str, Tensor]:
        return {"rows": torch.as_tensor(rows, dtype=torch.float32)[None] * self.scale}


def read_table(processor: RowsProcessor, item: object, where: str) -> dict[str, Tensor]:
    """The reader of the toy modality."""
    rows = np.asarray(item, dtype=np.float32)
    if rows.ndim != 2 or rows.shape[1] != WIDTH:
        raise ValueError(f"{where} has the shape {rows.shape}; a table must have {WIDTH} columns.")
    return processor(rows)


TABLE = Modality(
    name="table",
    plural="tables",
    auto_processor=RowsProcessor,
    processor_argument="processor",
    read=read_table,
    processor_files=("preprocessor_config.json",),
    values_per_token=WIDTH,
    max_dims=2,
)


class RowsConfig(PreTrainedConfig):
    model_type = "toy_rows"

    hidden_size: int = 8
    num_hidden_layers: int = 2


class RowsModel(PreTrainedModel):
    """The toy backbone: a layer for each row."""

    config: RowsConfig
    main_input_name = "rows"
    input_modalities = (TABLE,)

    def __init__(self, config: RowsConfig):
        super().__init__(config)
        sizes = [WIDTH, *[config.hidden_size] * config.num_hidden_layers]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in zip(sizes, sizes[1:], strict=False))
        self.post_init()

    def forward(self, rows: Tensor, output_hidden_states: bool = False, return_dict: bool = True) -> BaseModelOutput:
        states = []
        for layer in self.layers:
            rows = torch.tanh(layer(rows))
            states.append(rows)
        return BaseModelOutput(rows, tuple(states) if output_hidden_states else None)


@plain_errors
@strict
class TartTableConfig(TartBaseConfig):
    """The config of the toy classifier."""

    model_type = "tart_table"
    modality = TABLE
    backbone_key = "rows_config"
    sub_configs_defaults = sub_configs("rows_config", "toy_rows")

    rows_config: dict | PreTrainedConfig | None = None


class TartForTableClassification(TartMediaModel):
    """The toy classifier."""

    config: TartTableConfig
    main_input_name = "rows"

    def forward(self, rows: Tensor, support: Any = None, labels: Tensor | None = None) -> SequenceClassifierOutput:
        return self._classify_batch(check_features({"rows": rows}, "rows", (3,)), support, labels)


AutoConfig.register("toy_rows", RowsConfig)
AutoConfig.register("tart_table", TartTableConfig)
AutoModel.register(RowsConfig, RowsModel)
AutoModel.register(TartTableConfig, TartForTableClassification)


def make_tables(count: int, seed: int = 0) -> list[np.ndarray]:
    """Tables of two kinds in turn, of different lengths."""
    generator = np.random.default_rng(seed)
    return [generator.normal(2 * (i % 2) - 1, 0.5, (3 + i % 3, WIDTH)).astype("float32") for i in range(count)]


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A saved toy backbone with its processor."""
    torch.manual_seed(0)
    RowsModel(RowsConfig()).save_pretrained(tmp_path / "rows")
    RowsProcessor(scale=0.5).save_pretrained(tmp_path / "rows")
    return str(tmp_path / "rows")


def test__pipeline__modality_from_outside__classifies_saves_and_loads(folder: str, tmp_path: Path) -> None:
    examples = [{"table": table, "label": "ba"[i % 2]} for i, table in enumerate(make_tables(12))]
    tables = make_tables(8, seed=1)
    classify = pipeline("tart-classification", model=folder, examples=examples)
    assert type(classify.model) is TartForTableClassification
    assert classify.processor.scale == 0.5
    answers = classify(tables, batch_size=3)
    assert [answer["label"] for answer in answers] == ["b", "a"] * 4
    assert classify(tables[0])["label"] == "b"  # an array of two dimensions is one table
    classify.save_pretrained(tmp_path / "task")
    assert "backbone embeds tables" in (tmp_path / "task" / "README.md").read_text()
    again = pipeline("tart-classification", model=str(tmp_path / "task"))
    assert again(tables, batch_size=3) == answers
    assert isinstance(AutoModel.from_pretrained(tmp_path / "task"), TartForTableClassification)


def test__pipeline__modality_from_outside__faults_are_named(folder: str) -> None:
    examples = [{"table": table, "label": i % 2} for i, table in enumerate(make_tables(6))]
    classify = pipeline("tart-classification", model=folder, examples=examples)
    bad, good = classify([np.zeros((2, 3)), *make_tables(1)])
    assert "Input 0 has the shape (2, 3)" in bad["error"]
    assert good["label"] == 0
    with pytest.raises(TypeError, match=r"one table input as an array: numpy.asarray\(..., dtype='float32'\)"):
        classify([1.0, 2.0])
    with pytest.raises(TypeError, match="which is for texts; cut table inputs before"):
        classify(make_tables(1), max_length=3)
    with pytest.raises(ValueError, match="tokenizer is given, but the model classifies table inputs; give processor="):
        pipeline("tart-classification", model=folder, tokenizer=object())
    with pytest.raises(TypeError, match="processor is 3 of type int"):
        pipeline("tart-classification", model=folder, processor=3)


def test__from_backbone__modality_from_outside__loaded_model(folder: str) -> None:
    backbone = AutoModel.from_pretrained(folder)
    model = TartForTableClassification.from_backbone(backbone, shared_reasoner())
    assert model.config.modality is TABLE
    assert model.config.rows_config.hidden_size == 8


@pytest.mark.parametrize("modality", [*MODALITIES, TABLE])
def test__modality__copied_and_pickled__the_same_record(modality: Modality) -> None:
    for twin in (copy.deepcopy(modality), pickle.loads(pickle.dumps(modality))):
        assert twin == modality == modality.name == str(twin)
        assert (type(twin), vars(twin)) == (type(modality), vars(modality))


def test__modality__suffixes_and_arguments__each_of_one() -> None:
    for field in ("name", "plural", "processor_argument"):
        assert len({getattr(modality, field) for modality in MODALITIES}) == 3
    suffixes = [suffix for modality in MODALITIES for suffix in modality.suffixes]
    assert len(set(suffixes)) == len(suffixes)
    assert [each for each in MODALITIES if each.is_tokenized] == [TEXT]
    assert [each for each in MODALITIES if each.is_padded] == [AUDIO]
    assert IMAGE.cost(768) == 1
    assert IMAGE.cost(769) == 2


def test__modality__wrong_facts_and_changes__refused() -> None:
    with pytest.raises(TypeError, match=r"without \['auto_processor', 'processor_argument'\]"):
        Modality("smell", plural="smells", color=1)
    with pytest.raises(AttributeError, match="plural of a modality cannot be changed"):
        TEXT.plural = "words"
