"""The recipe of the embedded backbone: its steps repeat, also after an interruption; held-out text is never read."""

import gzip
import json
import lzma
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from accelerate.state import AcceleratorState
from helpers.builders import make_texts
from transformers import AutoModelForCausalLM, AutoTokenizer


RECIPE = Path(__file__).parents[2] / "hub_cards" / "tart-mini"


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The training script, with its neighbors importable."""
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("needs a torch with Muon, 2.9 or newer")
    monkeypatch.syspath_prepend(str(RECIPE))
    AcceleratorState._reset_state(True)  # other tests may have asked for other devices
    import train

    return train


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards and held-out documents."""
    folder = tmp_path_factory.mktemp("corpus")
    for seed, name in enumerate(["corpus-00", "corpus-01", "heldout"]):
        texts = make_texts(120, seed, max_words=60)
        rows = [{"text": f"{name} {text}", "source": "ab"[i % 2]} for i, text in enumerate(texts)]
        with lzma.open(folder / f"{name}.jsonl.xz", "wt") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def train(recipe: ModuleType, corpus: Path, output: Path, *options: object) -> list[dict]:
    """Run the recipe at its smallest; returns the measured lines of its log."""
    arguments = [
        "--corpus",
        corpus,
        "--output",
        output,
        "--size",
        "tiny",
        "--save-steps",
        10,
        "--mixed-precision",
        "no",
    ]
    recipe.main([str(argument) for argument in [*arguments, *options]])
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if "bits_per_byte" in line]


@pytest.mark.slow
def test__train__interrupted_and_resumed__same_held_out_loss(recipe: ModuleType, corpus: Path, tmp_path: Path) -> None:
    whole = train(recipe, corpus, tmp_path / "whole")
    parts = train(recipe, corpus, tmp_path / "parts", "--stop-at", 13)
    assert [line["step"] for line in parts] == [10, 13]
    for left_behind in ("checkpoint-10", "partial-checkpoint"):  # as a kill may leave them
        (tmp_path / "parts" / left_behind).mkdir()
        (tmp_path / "parts" / left_behind / "model.safetensors").write_bytes(b"half")
    parts = train(recipe, corpus, tmp_path / "parts")
    assert [line["step"] for line in parts] == [10, 13, 20, 30, 40]
    assert [path.name for path in (tmp_path / "parts").glob("*checkpoint*")] == ["checkpoint-40"]
    assert whole[-1]["bits_per_byte"] < whole[0]["bits_per_byte"]
    assert parts[-1]["bits_per_byte"] == pytest.approx(whole[-1]["bits_per_byte"], abs=1e-4)
    models = [AutoModelForCausalLM.from_pretrained(tmp_path / name / "model") for name in ("whole", "parts")]
    for first, second in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(first, second)


@pytest.mark.slow
def test__train__finished__model_measured_as_at_the_end(recipe: ModuleType, corpus: Path, tmp_path: Path) -> None:
    last = train(recipe, corpus, tmp_path)[-1]["bits_per_byte"]
    from bits_per_byte import bits_per_byte
    from corpus import read_held_out

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert model.dtype == torch.float32
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    texts = list(read_held_out(corpus)["text"])
    assert bits_per_byte(model, tokenizer, texts) == pytest.approx(last, abs=0.01)  # it was saved in half precision


@pytest.mark.slow
def test__train__folder_of_another_run__refused(recipe: ModuleType, corpus: Path, tmp_path: Path) -> None:
    train(recipe, corpus, tmp_path, "--stop-at", 10)
    for changed in (["--seed", 1], ["--exclude", "a"]):
        with pytest.raises(ValueError, match=rf"holds a run with other \['{changed[0][2:]}'\]"):
            train(recipe, corpus, tmp_path, *changed)
    with pytest.raises(ValueError, match="--save-steps is 0"):
        train(recipe, corpus, tmp_path / "new", "--save-steps", 0)


@pytest.mark.slow
def test__measure__two_small_tables__printed(
    recipe: ModuleType,
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import measure

    rows = [{"text": text, "label": "ab"[i % 2], "split": split} for split in ("train", "test")
            for i, text in enumerate(make_texts(12))]  # fmt: skip
    for name in measure.DATA_SETS:
        with gzip.open(tmp_path / f"{name}.jsonl.gz", "wt") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(sys, "argv", ["measure.py", "--corpus", str(corpus), "--text", str(tmp_path)])
    measure.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines if line.startswith("| mini")] == [
        "mini",
        "mini, all layers",
        "mini, last layer",
    ]


def test__read_documents__excluded_and_held_out__never_read(recipe: ModuleType, corpus: Path) -> None:
    documents = recipe.read_documents(corpus, exclude=["a"])
    assert len(documents) == 120
    assert set(documents["source"]) == {"b"}
    assert not any("heldout" in text for text in documents["text"])


def test__read_documents__nothing_there__said(recipe: ModuleType, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no shard"):
        recipe.read_documents(tmp_path)
    with pytest.raises(ValueError, match=r"No document comes from \['imdb'\]"):
        recipe.read_documents(corpus, exclude=["imdb"])


def test__draw_rows__one_epoch__every_row_once_and_another_order_next(recipe: ModuleType, corpus: Path) -> None:
    documents = recipe.read_documents(corpus)
    tokenizer = recipe.train_tokenizer(documents, 512, 64)
    rows = recipe.pack(documents, tokenizer, 64)
    size = recipe.SIZES["tiny"]
    steps = len(rows) // size.rows_per_step
    epochs = [
        torch.cat([recipe.draw_rows(rows, size, epoch * steps + i, seed=0).reshape(-1, 64) for i in range(steps)])
        for epoch in range(2)
    ]
    assert len(epochs[0].unique(dim=0)) == steps * size.rows_per_step
    assert not torch.equal(*epochs)


@pytest.mark.parametrize("length", range(1, 12))
def test__windows__every_token_but_the_first__predicted_once(recipe: ModuleType, length: int) -> None:
    from corpus import windows

    pieces = list(windows(list(range(length)), 4))
    assert [token for piece in pieces for token in piece[1:]] == list(range(1, length))
    assert all(len(piece) <= 4 for piece in pieces)
