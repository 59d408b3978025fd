"""The view `sentence` is the embedding of sentence-transformers, of its folders and of its loaded models."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.builders import make_examples, make_texts, score_all, shared_reasoner
from helpers.sentence_encoders import build_with_library, write_encoder, write_json, write_tokenizer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer, pipeline

from transformers_tart import TartForImageClassification, TartForSequenceClassification
from transformers_tart.backbones import forward
from transformers_tart.backbones.reference import load_processor
from transformers_tart.errors import BackboneMismatchError, CorruptFileError
from transformers_tart.inputs.views import View


pytestmark = pytest.mark.slow

TEXTS = [*make_texts(5, seed=4), "W1 w2 W3", "w1"]
PAIRS = [("w1 w2", "w3"), ("w4 w5 w6", "w7 w8 w9 w1 w2")]
Build = Callable[[Any], Any]


def pool(modes: str | tuple[str, ...] = "mean", width: int = 32, **options: Any) -> Build:
    return lambda modules: modules.Pooling(width, modes, **options)


def dense(width: int = 32, out: int = 32, activation: nn.Module | None = None, **options: Any) -> Build:
    return lambda modules: modules.Dense(width, out, activation_function=activation or nn.Tanh(), **options)


def normalize(modules: Any) -> Any:
    return modules.Normalize()


def layer_norm(modules: Any) -> Any:
    return modules.LayerNorm(32)


def compose(source: Any, **options: Any) -> TartForSequenceClassification:
    return TartForSequenceClassification.from_backbone(source, shared_reasoner(), **options)


def embed(model: TartForSequenceClassification, texts: list[Any] = TEXTS) -> Tensor:
    """Embeddings (n, layers of all views, width) of queries."""
    embedder, tokenizer = model.embedder(), load_processor(model)
    return embedder.embed_rows(embedder.tokenize(tokenizer, texts), pad_token_id=tokenizer.pad_token_id)


def assert_same(model: TartForSequenceClassification, library: Any, texts: list[Any] = TEXTS, **options: Any) -> None:
    """Compare the first layer of the first view with the embeddings of the library."""
    expected = torch.from_numpy(library.encode(texts, **options))
    found = embed(model, texts)[:, 0]
    torch.testing.assert_close(found[:, : expected.shape[1]], expected, atol=1e-5, rtol=0)
    assert not found[:, expected.shape[1] :].any()


CASES: dict[str, tuple[Build, ...]] = {
    "mean": (pool(), normalize),
    "cls": (pool("cls"),),
    "last": (pool("lasttoken"), normalize),
    "max": (pool("max"),),
    "weighted": (pool("weightedmean"), normalize),
    "sqrt": (pool("mean_sqrt_len_tokens"),),
    "several": (pool(("max", "cls", "weightedmean")), normalize),
    "all": (pool(("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")),),
    "dense": (pool("cls"), dense(out=16)),
    "wider": (pool(), dense(out=48, activation=nn.Identity(), bias=False), dense(48, 24, nn.GELU()), normalize),
    "residual": (pool(("mean", "max")), dense(64, 20, nn.ReLU(), use_residual=True)),
    "norms": (pool(), normalize, dense(use_residual=True), layer_norm, normalize),
}


@pytest.mark.parametrize("name", CASES)
def test__sentence__modules_of_the_library__its_embedding(name: str, tmp_path: Path) -> None:
    library = build_with_library(tmp_path / "encoder", *CASES[name])
    by_name = compose(tmp_path / "encoder")
    assert_same(by_name, library)
    assert_same(by_name, library, PAIRS)
    assert torch.equal(embed(compose(library)), embed(by_name))
    alone = compose(tmp_path / "encoder", views="sentence")
    assert_same(alone, library)


def test__sentence__prompts__by_text_name_and_default(tmp_path: Path) -> None:
    prompts = {"query": "w7 w8 ", "none": ""}
    library = build_with_library(tmp_path / "encoder", pool(), prompts=prompts, default_prompt_name="query")
    for source in (tmp_path / "encoder", library):
        assert compose(source).config.prompt == "w7 w8 "
        assert_same(compose(source), library)
        assert_same(compose(source), library, PAIRS)
        assert_same(compose(source, prompt="w9w9"), library, prompt="w9w9")
        assert_same(compose(source, prompt_name="none"), library, prompt_name="none")
        assert compose(source, prompt="").config.prompt is None
        assert_same(compose(source, prompt=""), library, prompt="")
        with pytest.raises(ValueError, match="prompt_name is 'other', and the sentence encoder has the prompts"):
            compose(source, prompt_name="other")
        with pytest.raises(ValueError, match="prompt and prompt_name, 'query', are given"):
            compose(source, prompt="a", prompt_name="query")


@pytest.mark.parametrize("modes", ["mean", "cls", "max", "weightedmean", "lasttoken", "mean_sqrt_len_tokens"])
def test__sentence__prompt_outside_the_pooling__its_embedding(modes: str, tmp_path: Path) -> None:
    library = build_with_library(
        tmp_path / "encoder", pool(modes, include_prompt=False), prompts={"a": "w7 w8 "}, default_prompt_name="a"
    )
    model = compose(tmp_path / "encoder")
    assert model.config.views[0].skip == 3
    assert model.config.views[1].skip == 0
    texts = [text for text in TEXTS if len(text.split()) > 1]
    assert_same(model, library, texts)
    assert_same(compose(library), library, texts)
    assert compose(tmp_path / "encoder", prompt="").config.views[0].skip == 0


def test__sentence__length_and_case__as_in_the_library(tmp_path: Path) -> None:
    library = build_with_library(tmp_path / "encoder", pool(), max_length=5, lower_case=True)
    assert_same(compose(tmp_path / "encoder"), library)
    loaded = compose(library)
    assert (loaded.config.max_length, loaded.config.lower_case) == (5, True)
    assert_same(loaded, library)
    # as older versions of the library wrote them
    folder = write_encoder(tmp_path / "old", max_seq_length=5, do_lower_case=True)
    model = compose(folder)
    assert (model.config.max_length, model.config.lower_case) == (5, True)
    assert_same(model, type(library)(folder, device="cpu"))
    assert torch.equal(embed(model, ["W1 W2"]), embed(model, ["w1 w2"]))


def test__truncate_dim__given_or_of_the_model__first_components(tmp_path: Path) -> None:
    library = build_with_library(tmp_path / "encoder", pool(), normalize)
    model = compose(tmp_path / "encoder", truncate_dim=12)
    assert_same(model, library, truncate_dim=12)
    assert embed(compose(tmp_path / "encoder", views="sentence", truncate_dim=12)).shape == (len(TEXTS), 1, 12)
    library.truncate_dim = 7
    assert_same(compose(library), library)
    with pytest.raises(ValueError, match="truncate_dim is for the view of a sentence encoder"):
        compose(tmp_path / "encoder", views="mean", truncate_dim=7)


def test__sentence__beside_other_views__one_forward_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "encoder"
    build_with_library(folder, pool(("mean", "max")), dense(64, 40))
    model = compose(folder)
    calls, run = [], forward.run_backbone
    monkeypatch.setattr(forward, "run_backbone", lambda *args, **given: calls.append(1) or run(*args, **given))
    found = embed(model, TEXTS)
    assert len(calls) == 1
    alone = [embed(compose(folder, views=name)) for name in ("sentence", "mean", "early_mean")]
    apart = [torch.nn.functional.pad(part, (0, 40 - part.shape[-1])) for part in alone]
    torch.testing.assert_close(found, torch.cat(apart, dim=1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("is_loaded", [False, True])
def test__save_pretrained__head_and_prompt__same_logits(is_loaded: bool, tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    library = build_with_library(
        folder, pool(), dense(out=16), normalize, prompts={"a": "w7 "}, default_prompt_name="a"
    )
    state = {name: value.clone() for name, value in library.state_dict().items()}
    if is_loaded:  # by its name
        from sentence_transformers import SentenceTransformer

        library = SentenceTransformer(str(folder), device="cpu")
    model = compose(library if is_loaded else folder)
    classify = pipeline("tart-classification", model=model, examples=make_examples())
    expected = score_all(classify, TEXTS)
    for options in ({}, {"include_backbone": True}):
        task = tmp_path / f"task{len(options)}"
        classify.save_pretrained(task, **options)
        if options:
            (folder / "2_Dense").rename(tmp_path / "away")
        loaded = pipeline("tart-classification", model=str(task))
        assert torch.equal(score_all(loaded, TEXTS), expected)
        assert loaded.model.config.prompt == "w7 "
        assert "`w7`" in (task / "README.md").read_text()
    with pytest.raises(ValueError, match="embedded with other values of .'prompt'."):
        TartForSequenceClassification.from_pretrained(task, prompt="w8 ")
    assert all(torch.equal(value, library.state_dict()[name]) for name, value in state.items())


def test__digest__other_weights_of_the_head__mismatch(tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    build_with_library(folder, pool(), dense(out=16))
    classify = pipeline("tart-classification", model=compose(folder), examples=make_examples())
    classify.save_pretrained(tmp_path / "task")
    classify.model.backbone.sentence_head[0].linear.weight.data.mul_(1.5)
    with pytest.raises(BackboneMismatchError, match="sentence_head"):
        classify("w1 w2")
    weights = folder / "2_Dense" / "model.safetensors"
    save_file({name: 2 * tensor for name, tensor in load_file(weights).items()}, weights)
    with pytest.raises(BackboneMismatchError, match="sentence_head"):
        TartForSequenceClassification.from_pretrained(tmp_path / "task")


def test__from_backbone__loaded_model_of_the_library__unchanged(tmp_path: Path) -> None:
    library = build_with_library(tmp_path / "encoder", pool(), dense(out=16))
    keys, config = list(library.state_dict()), library[0].auto_model.config.to_dict()
    model = compose(library)
    assert list(library.state_dict()) == keys
    assert library[0].auto_model.config.to_dict() == config
    assert model.backbone.sentence_head[0].linear.weight.data_ptr() == library[2].linear.weight.data_ptr()
    again = compose(library)  # whose modules are those of the first
    for each in (model, again, model):
        assert_same(each, library)


def test__from_backbone__library_without_a_transformer__refused(tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    write_tokenizer(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    static = library.sentence_transformer.modules.StaticEmbedding(tokenizer.backend_tokenizer, embedding_dim=8)
    with pytest.raises(ValueError, match="begins with StaticEmbedding, not with a transformer"):
        compose(library.SentenceTransformer(modules=[static], device="cpu"))


def edit(folder: Path, file: str, **changes: Any) -> None:
    fields = json.loads((folder / file).read_text())
    write_json(folder / file, {**fields, **changes})


def test__from_backbone__module_that_the_package_does_not_have__refused(tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    build_with_library(folder, pool(), dense(out=16))
    edit(folder, "2_Dense/config.json", activation_function="os.system")
    with pytest.raises(ValueError, match="has the activation function 'os.system'.*Pass pooling=..."):
        compose(folder)
    edit(folder, "2_Dense/config.json", activation_function="torch.nn.modules.activation.Tanh", out_features=17)
    with pytest.raises(CorruptFileError):
        compose(folder)
    edit(folder, "2_Dense/config.json", out_features=2**40)
    with pytest.raises(ValueError, match="out_features"):
        compose(folder)
    edit(folder, "2_Dense/config.json", out_features=16)
    (folder / "2_Dense" / "model.safetensors").rename(folder / "2_Dense" / "pytorch_model.bin")
    with pytest.raises(CorruptFileError, match="a pickle"):
        compose(folder)
    (folder / "2_Dense" / "pytorch_model.bin").unlink()
    with pytest.raises(CorruptFileError, match="has no 2_Dense/model.safetensors"):
        compose(folder)


@pytest.mark.core
def test__prompt__of_any_text_backbone__before_each_text(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path)
    plain = compose(folder, views=["mean", View(template="w9: {text}")])
    prompted = compose(folder, views=["mean", View(template="w9: {text}")], prompt="w5 ", max_length=20)
    with_text = [f"w5 {text}" for text in TEXTS]
    plain.config.max_length = 20
    reading, expected = (
        model.embedder().embed_examples(examples(texts), load_processor(model)).embeddings
        for model, texts in ((prompted, TEXTS), (plain, with_text))
    )
    torch.testing.assert_close(reading, expected)
    with pytest.raises(ValueError, match="is no sentence encoder with named prompts"):
        compose(AutoModel.from_pretrained(folder), prompt_name="query")


def examples(texts: list[str]) -> Any:
    from transformers_tart.inputs.examples import Examples

    return Examples(texts, [i % 2 for i in range(len(texts))], ("a", "b"))


def test__pipeline__prompt__composed_with_it(tmp_path: Path) -> None:
    library = build_with_library(tmp_path / "encoder", pool(), dense(out=16), prompts={"query": "w7 "})
    model = compose(library, prompt_name="query")
    for given in (library, str(tmp_path / "encoder")):
        classify = pipeline("tart-classification", model=given, examples=make_examples(), prompt_name="query")
        expected = pipeline("tart-classification", model=model, examples=make_examples())
        assert classify.model.config.prompt == "w7 "
        assert torch.equal(score_all(classify, TEXTS), score_all(expected, TEXTS))
    with pytest.raises(ValueError, match="prompt is given with a model that is loaded already"):
        pipeline("tart-classification", model=model, prompt="w8 ")


@pytest.mark.core
def test__prompt__of_images__refused() -> None:
    from helpers.media_backbones import build_media

    with pytest.raises(ValueError, match="A prompt is given, which is for texts, not for image"):
        TartForImageClassification.from_backbone(build_media("vit"), shared_reasoner(), prompt="a")
