"""Pipelines that have been used go through pickle, joblib, cloudpickle and copies, and to new processes."""

import copy
import io
import multiprocessing
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cloudpickle
import joblib
import pytest
import torch
from datasets.fingerprint import Hasher
from helpers.builders import compose, make_examples, make_pipeline, make_texts, save_backbone
from helpers.media_backbones import make_media, make_media_examples, processor_of, shared_media
from transformers import pipeline

from transformers_tart import TartClassificationPipeline


pytestmark = pytest.mark.core


TEXTS = make_texts(5, seed=3)


def by_joblib(value: Any) -> Any:
    """Through a file of joblib."""
    file = io.BytesIO()
    joblib.dump(value, file)
    file.seek(0)
    return joblib.load(file)


WAYS: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "cloudpickle": lambda value: cloudpickle.loads(cloudpickle.dumps(value)),
    "joblib": by_joblib,
    "deepcopy": copy.deepcopy,
}
MODELS: dict[str, dict[str, Any]] = {
    "stream": {},
    "views": {"views": ["mean", "one_word", "echo_all"]},
    "bert": {"model_type": "bert"},
    "vanilla": {"protocol": "vanilla"},
    "loo": {"protocol": "loo"},
    "gpt2": {"model_type": "gpt2", "reasoner": "gpt2"},
}


def assert_survives(classify: TartClassificationPipeline, inputs: list, way: str) -> None:
    """A pipeline that was used gives the same afterwards, bit for bit, and is left as it was."""
    expected = classify(inputs, top_k=None)
    again = WAYS[way](classify)
    assert again(inputs, top_k=None) == expected
    assert WAYS[way](again)(inputs, top_k=None) == expected
    assert classify(inputs, top_k=None) == expected


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", MODELS)
def test__pickle__used_pipeline__same_answers(kind: str, way: str) -> None:
    assert_survives(make_pipeline(compose(**MODELS[kind])), TEXTS, way)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("name", "kind"), [("vit", "image"), ("wav2vec2", "audio")])
def test__pickle__used_pipeline_of_media__same_answers(name: str, kind: str, way: str) -> None:
    processor = {"image_processor" if kind == "image" else "feature_extractor": processor_of(name)}
    examples = make_media_examples(kind)
    classify = pipeline("tart-classification", model=shared_media(name), examples=examples, **processor)
    assert_survives(classify, make_media(kind, 3), way)


@pytest.mark.parametrize("way", WAYS)
def test__pickle__embedding_cache__opened_again(way: str, tmp_path: Path) -> None:
    classify = make_pipeline(embedding_cache=tmp_path)
    assert_survives(classify, TEXTS, way)
    again = WAYS[way](classify)
    again(TEXTS)
    assert again._cache is not None


def test__pickle__hooks__those_of_the_user_stay() -> None:
    classify = make_pipeline(compose(views="plain"))
    layer = classify.model.backbone.layers[0]
    layer.register_forward_hook(count_call)
    classify(TEXTS)
    hooks = dict(layer._forward_hooks)
    again = pickle.loads(pickle.dumps(classify))
    assert list(again.model.backbone.layers[0]._forward_hooks.values()) == [count_call]
    assert layer._forward_hooks == hooks
    assert len(hooks) > 1
    before = len(CALLS)
    again("w1")
    assert len(CALLS) == before + 1


CALLS: list[int] = []


def count_call(module: torch.nn.Module, given: Any, output: Any) -> None:
    """Count a call of a layer."""
    CALLS.append(1)


def test__pickle__modules_that_are_shared__stay_shared() -> None:
    model = compose()
    model.reasoner.twin = model.backbone.norm
    again = pickle.loads(pickle.dumps(model))
    assert again.reasoner.twin is again.backbone.norm


def test__pickle__token__left_out() -> None:
    model = compose()
    model.origin = replace(model.origin, hub={"token": "secret-of-the-user", "cache_dir": "there"})
    pickled = pickle.dumps(model)
    assert b"secret-of-the-user" not in pickled
    assert pickle.loads(pickled).origin.hub == {"cache_dir": "there"}
    assert model.origin.hub["token"] == "secret-of-the-user"


def classify_in_process(classify: TartClassificationPipeline, texts: list[str]) -> list:
    """What another process is to do."""
    torch.set_num_threads(1)
    return classify(texts, top_k=None)


@pytest.mark.slow
def test__pickle__process_that_starts_anew__same_answers() -> None:
    classify = make_pipeline()
    expected = classify(TEXTS, top_k=None)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(classify_in_process, (classify, TEXTS)) == expected


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["stream", "views"])
def test__hasher__used_pipeline__same_hash(kind: str) -> None:
    classify = make_pipeline(compose(**MODELS[kind]))
    first = Hasher.hash(classify)
    classify(TEXTS)
    assert Hasher.hash(classify) == first


HASH = """
import sys
from datasets.fingerprint import Hasher
from transformers import pipeline
import transformers_tart
classify = pipeline("tart-classification", model=sys.argv[1])
print(Hasher.hash(classify))
"""


@pytest.mark.slow
def test__hasher__other_process__same_hash(tmp_path: Path) -> None:
    classify = pipeline("tart-classification", model=save_backbone(tmp_path / "backbone"), examples=make_examples())
    classify.save_pretrained(tmp_path / "task")
    found = {
        subprocess.run(
            [sys.executable, "-c", HASH, str(tmp_path / "task")],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1
