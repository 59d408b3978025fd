"""Repositories of sentence-transformers: their pooling, normalization and length are those of their modules."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.builders import build_backbone, make_examples, make_texts, score_all, shared_reasoner
from helpers.hub_server import HubServer
from helpers.sentence_encoders import CLS, KINDS, MODULES, NEW, write_encoder, write_json, write_tokenizer
from huggingface_hub import constants
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, pipeline

from transformers_tart import TartForSequenceClassification
from transformers_tart.backbones.reference import load_processor
from transformers_tart.backbones.sentence_encoders import find_sentence_encoder
from transformers_tart.errors import CorruptFileError
from transformers_tart.inputs.views import View


pytestmark = pytest.mark.core


pytest_plugins = ["helpers.hub_fixtures"]

TEXTS = make_texts(9, seed=4)


def compose(folder: str | Path, **options: Any) -> TartForSequenceClassification:
    return TartForSequenceClassification.from_backbone(folder, shared_reasoner(), **options)


def embed(model: TartForSequenceClassification, texts: list[str] = TEXTS) -> Tensor:
    """Embeddings (n, layers, hidden) of queries."""
    embedder, tokenizer = model.embedder(), load_processor(model)
    return embedder.embed_rows(embedder.tokenize(tokenizer, texts), pad_token_id=tokenizer.pad_token_id)


def embed_by_hand(folder: str, pool: Any, normalize: bool, length: int = 8) -> Tensor:
    """Embeddings (n, hidden), of each text alone."""
    backbone, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    found = []
    for text in TEXTS:
        ids = tokenizer(text, truncation=True, max_length=length, return_tensors="pt")
        with torch.no_grad():
            pooled = pool(backbone(**ids).last_hidden_state[0])
        found.append(pooled / pooled.square().sum().sqrt() if normalize else pooled)
    return torch.stack(found)


def said(log: pytest.LogCaptureFixture) -> str:
    return " ".join(r.getMessage() for r in log.records if r.name.startswith("transformers_tart") and r.levelno >= 30)


@pytest.mark.slow
@pytest.mark.parametrize("later", [(), ("Normalize",), ("sentence_transformers.models.Dropout", "Normalize")])
@pytest.mark.parametrize("name", MODULES)
def test__from_backbone__sentence_encoder__its_sentence_embedding(
    name: str, later: tuple[str, ...], tmp_path: Path, all_logs: pytest.LogCaptureFixture
) -> None:
    said_of_pooling, pool = MODULES[name]
    folder = write_encoder(tmp_path, said_of_pooling, *later)
    model = compose(folder)
    assert said(all_logs) == ""
    expected = embed_by_hand(folder, pool, bool(later))
    torch.testing.assert_close(embed(model)[:, 0], expected, atol=1e-5, rtol=1e-5)
    support = model.encode_support([{"text": t, "label": i % 2} for i, t in enumerate(TEXTS)], load_processor(model))
    torch.testing.assert_close(support.embeddings[:, 0], expected, atol=2e-3, rtol=0)  # rounded to float16
    view = model.config.views[0]
    assert (view.layers, model.config.max_length, view.normalize) == (-1, 8, bool(later))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "later"),
    [("mean", ()), ("first", ("Normalize",)), ("max", ("Normalize",)), ("last", ()), ("new_last", ("Normalize",))],
)
def test__from_backbone__sentence_encoder__same_as_the_library(
    module: str, later: tuple[str, ...], tmp_path: Path
) -> None:
    library = pytest.importorskip("sentence_transformers")
    folder = write_encoder(tmp_path, MODULES[module][0], *later)
    expected = torch.from_numpy(library.SentenceTransformer(folder, device="cpu").encode(TEXTS))
    torch.testing.assert_close(embed(compose(folder))[:, 0], expected, atol=1e-5, rtol=1e-5)


def test__pipeline__sentence_encoder_by_name__same_as_composed(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path, CLS, "Normalize")
    classify = pipeline("tart-classification", model=folder, examples=make_examples())
    assert classify.model.config.views[0].pooling == "first"
    composed = pipeline("tart-classification", model=compose(folder), examples=make_examples())
    assert torch.equal(score_all(classify, TEXTS), score_all(composed, TEXTS))


@pytest.mark.slow
def test__save_pretrained__task_on_a_sentence_encoder__same_logits(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "encoder", CLS, "Normalize")
    classify = pipeline("tart-classification", model=folder, examples=make_examples())
    classify.save_pretrained(tmp_path / "task")
    loaded = pipeline("tart-classification", model=str(tmp_path / "task"))
    assert torch.equal(score_all(loaded, TEXTS), score_all(classify, TEXTS))
    assert torch.equal(loaded.model.support.embeddings, classify.model.support.embeddings)
    with pytest.raises(ValueError, match="embedded with other values of .'views'."):
        TartForSequenceClassification.from_pretrained(tmp_path / "task", normalize=False)


@pytest.mark.parametrize(
    "given", [{"pooling": "mean"}, {"normalize": False}, {"layers": "all"}, {"layers": 1, "max_length": 5}]
)
def test__from_backbone__arguments_given__win(given: dict[str, Any], tmp_path: Path) -> None:
    folder = write_encoder(tmp_path, CLS, "Normalize")
    config = compose(folder, **given).config
    expected = {"pooling": "first", "normalize": True, "layers": -1, "max_length": 8, **given}
    found = {**config.views[0].as_dict(), "max_length": config.max_length}
    assert len(config.views) == 1
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize("content", [None, []])
def test__from_backbone__no_sentence_encoder__as_before(content: Any, tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    build_backbone("bert").save_pretrained(tmp_path)
    if content is not None:
        write_json(tmp_path / "modules.json", content)
    config = compose(tmp_path).config
    assert ([view.name for view in config.views], config.max_length) == (["mean", "early_mean"], None)
    loaded = compose(AutoModel.from_pretrained(write_encoder(tmp_path / "encoder")))  # who loads it, says how
    assert loaded.config.views == config.views


@pytest.mark.parametrize("views", ["default", "plain", ["sentence"], None])
def test__from_backbone__names_of_views__the_embedding_of_the_repository(views: Any, tmp_path: Path) -> None:
    config = compose(write_encoder(tmp_path, CLS, "Normalize"), views=views).config
    assert config.views[0] == View("sentence", None, "first", -1, True)


def test__from_backbone__view_of_the_user__alone(tmp_path: Path) -> None:
    mine = View("mine", "w1 {text}", "mean")
    assert compose(write_encoder(tmp_path, CLS), views=mine).config.views == (mine,)


@pytest.mark.parametrize("content", [{"idx": 0}, [{"path": "a"}], "text", [1], None])
def test__from_backbone__list_of_modules_that_is_none__said(content: Any, tmp_path: Path) -> None:
    folder = write_encoder(tmp_path)
    write_json(tmp_path / "modules.json", content)
    with pytest.raises(CorruptFileError, match="modules.json of .* is no list of modules"):
        compose(folder)


@pytest.mark.parametrize(
    ("pooling", "first", "message"),
    [
        ({NEW: ["cls", "other"]}, None, r"has the pooling cls \+ other"),
        (
            {},
            ("Transformer", "sentence_transformers.models.WeightedLayerPooling"),
            "Transformer, WeightedLayerPooling",
        ),
        ({}, ("custom_st.Transformer", "Pooling"), "is made of custom_st.Transformer, Pooling"),
        ({}, ("Transformer",), "is made of Transformer,"),
    ],
)
def test__from_backbone__modules_that_the_package_does_not_have__refused(
    pooling: dict, first: tuple[str, ...] | None, message: str, tmp_path: Path, all_logs: pytest.LogCaptureFixture
) -> None:
    kinds = [KINDS.get(kind, kind) for kind in first or ("Transformer", "Pooling")]
    folder = write_encoder(tmp_path, pooling, first=tuple(kinds))
    with pytest.raises(ValueError, match=f"{message}.*Pass pooling=..."):
        compose(folder)
    view = compose(folder, pooling="mean").config.views[0]
    assert (view.pooling, view.normalize, view.layers) == ("mean", False, -1)
    assert said(all_logs) == ""


def test__from_backbone__settings_that_are_not_applied__said(
    tmp_path: Path, all_logs: pytest.LogCaptureFixture
) -> None:
    folder = write_encoder(tmp_path, CLS, tokenizer_args={"add_eos_token": True, "model_max_length": 5})
    compose(folder)
    assert "sets add_eos_token, which is not" in said(all_logs)
    assert str(tmp_path) not in said(all_logs)
    all_logs.clear()
    compose(folder, pooling="mean")
    assert said(all_logs) == ""


def test__from_backbone__unknown_module_after_the_pooling__refused(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path, CLS, "custom_st.Whitening")
    with pytest.raises(ValueError, match="goes on with custom_st.Whitening.*Pass pooling=..."):
        compose(folder)
    assert not compose(folder, pooling="mean").config.views[0].head


def test__from_backbone__default_prompt__taken(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path)
    prompts = {"prompts": {"query": "query: ", "document": ""}, "default_prompt_name": "document"}
    write_json(tmp_path / "config_sentence_transformers.json", prompts)
    assert compose(folder).config.prompt is None
    write_json(tmp_path / "config_sentence_transformers.json", {**prompts, "default_prompt_name": "query"})
    assert compose(folder).config.prompt == "query: "
    write_json(tmp_path / "config_sentence_transformers.json", {**prompts, "default_prompt_name": "other"})
    with pytest.raises(ValueError, match="prompt_name is 'other', and the sentence encoder has the prompts"):
        compose(folder)


@pytest.mark.parametrize("output", ["logits", ["hidden_states", 3]])
def test__from_backbone__other_output_of_the_transformer__refused(output: Any, tmp_path: Path) -> None:
    modality = {"text": {"method": "forward", "method_output_name": output}}
    with pytest.raises(ValueError, match="something else than the last layer"):
        compose(write_encoder(tmp_path, modality_config=modality))


def test__find_sentence_encoder__length_in_another_place__found(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path, processor_kwargs={"model_max_length": 9}, max_seq_length=None)
    (tmp_path / "sentence_bert_config.json").rename(tmp_path / "sentence_xlnet_config.json")
    assert find_sentence_encoder(folder).max_length == 9
    (tmp_path / "sentence_xlnet_config.json").unlink()
    assert find_sentence_encoder(folder).max_length is None


@pytest.mark.slow
def test__from_backbone__transformer_in_a_folder__found_again(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "encoder", MODULES["mean"][0], path="0_Transformer")
    model = compose(folder)
    expected = embed_by_hand(f"{folder}/0_Transformer", lambda hidden: hidden.mean(0), False)
    torch.testing.assert_close(embed(model)[:, 0], expected, atol=1e-5, rtol=1e-5)
    model.save_pretrained(tmp_path / "model")
    for options in ({}, {"backbone": folder}, {"backbone": f"{folder}/0_Transformer"}):
        loaded = TartForSequenceClassification.from_pretrained(tmp_path / "model", **options)
        assert torch.equal(embed(loaded), embed(model))


def test__find_sentence_encoder__path_out_of_the_repository__refused(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "encoder")
    for path in ("../other", "/etc", "a/../../b", "..\\other"):
        rows = [{"idx": i, "name": "", "path": path, "type": KINDS[kind]} for i, kind in enumerate(list(KINDS)[:2])]
        write_json(tmp_path / "encoder" / "modules.json", rows)
        with pytest.raises(ValueError, match="must be a file or folder inside the repository"):
            find_sentence_encoder(folder)


def test__find_sentence_encoder__damaged_files__say_so(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path)
    listed = (tmp_path / "modules.json").read_text()
    (tmp_path / "modules.json").write_text(listed.replace("1_Pooling", ""))  # the config there says no pooling
    assert find_sentence_encoder(folder).pooling == "mean"
    (tmp_path / "modules.json").write_text(listed)
    (tmp_path / "1_Pooling" / "config.json").unlink()
    with pytest.raises(CorruptFileError, match="announces 1_Pooling/config.json, which cannot be loaded"):
        find_sentence_encoder(folder)
    (tmp_path / "modules.json").write_text('[{"idx": 0')
    with pytest.raises(CorruptFileError, match="modules.json of .* cannot be read"):
        find_sentence_encoder(folder)


@pytest.mark.slow
def test__from_backbone__sentence_encoder_on_the_hub__same_as_the_folder(
    hub: HubServer, tmp_path: Path, all_logs: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(write_encoder(tmp_path / "encoder", CLS, "Normalize"))
    hub.storage.create("org/encoder", private=False)
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    hub.replace("org/encoder", **files)
    classify = pipeline("tart-classification", model="org/encoder", examples=make_examples())
    assert torch.equal(embed(classify.model), embed(compose(folder)))
    all_logs.clear()
    hub.replace("org/encoder", **{"modules.json": None})
    assert compose("org/encoder").config.views[0].pooling == "mean"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert compose("org/encoder").config.views[0].pooling == "mean"  # known not to have the file
    assert find_sentence_encoder("org/unknown", quiet=True) is None
    assert said(all_logs) == ""
    assert find_sentence_encoder("org/unknown") is None
    assert "Without a connection to the Hub it is unknown" in said(all_logs)
