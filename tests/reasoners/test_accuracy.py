"""What the whole of it is for: real texts, real small language models, the shipped reasoner."""

from pathlib import Path
from statistics import mean
from types import ModuleType

import pytest
import torch
from helpers.builders import SHARED, score_all, shared_reasoner
from helpers.scripts import load_script
from sklearn.linear_model import RidgeClassifier
from transformers import AutoModel, AutoTokenizer, pipeline

from transformers_tart.backbones import MINI
from transformers_tart.evaluation.methods.baselines import logistic_regression
from transformers_tart.evaluation.tasks.embedded import EmbeddedTask, ReasonerPredictor, measure_task


TEXTS = SHARED / "data" / "text"
EMBEDDINGS = SHARED / "data" / "embeddings"


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    """The script that embedded what the cards tell of."""
    return load_script("tart-reasoner-kernel/embed.py")


def embed(recipe: ModuleType, backbone: str, name: str, folder: Path) -> EmbeddedTask:
    """A real text set as a backbone sees it; the test is skipped where it is absent."""
    path = TEXTS / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip(f"needs the real text set {name}, which is absent here")
    model, tokenizer = AutoModel.from_pretrained(backbone), AutoTokenizer.from_pretrained(backbone)
    recipe.embed_file(model, tokenizer, path, folder / "embedded.safetensors")
    return EmbeddedTask.load(folder / "embedded.safetensors")


def ridge(support: torch.Tensor, labels: torch.Tensor, query: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Ridge of strength 1 on embeddings with a mean squared norm of 1; certain of what it says."""
    scale = support.square().sum(1).mean().sqrt()
    guesses = RidgeClassifier(alpha=1.0).fit(support / scale, labels).predict(query / scale)
    return torch.nn.functional.one_hot(torch.from_numpy(guesses), num_classes).double()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "name", "k", "accuracy"),
    [
        ("stories260K", "sms_spam", 64, 0.95),
        pytest.param("stories260K", "ag_news", 128, 0.43, marks=pytest.mark.exhaustive),
        ("stories260K", "trec6", 128, 0.45),
        ("mini", "ag_news", 64, 0.6),
        ("mini", "trec6", 256, 0.6),
    ],
)
def test__reasoner__real_texts__as_accurate_as_linear_models_and_better_calibrated(
    recipe: ModuleType,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    backbone: str,
    name: str,
    k: int,
    accuracy: float,
) -> None:
    folder = str(MINI) if backbone == "mini" else request.getfixturevalue("stories_folder")
    task = embed(recipe, folder, name, tmp_path)
    methods = {"tart": ReasonerPredictor(shared_reasoner()), "logistic": logistic_regression, "ridge": ridge}
    found = list(measure_task(task, methods, [k], range(5)))
    right = {method: mean(m.metrics["accuracy"] for m in found if m.method == method) for method in methods}
    cost = {method: mean(m.metrics["log_loss"] for m in found if m.method == method) for method in methods}
    assert right["tart"] >= accuracy
    assert right["tart"] >= max(right["ridge"], right["logistic"]) - 0.015
    assert cost["tart"] < 1.05 * cost["logistic"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "k"),
    [
        (("cr", "imdb", "rotten_tomatoes", "sms_spam", "sst2", "tweet_hate"), 64),
        (("20newsgroups", "ag_news", "banking77", "trec6"), 160),
    ],
)
def test__reasoner__sentence_embeddings__at_least_as_accurate_as_a_probe_and_better_calibrated(
    names: tuple[str, ...], k: int
) -> None:
    methods = {"tart": ReasonerPredictor(shared_reasoner()), "probe": logistic_regression}
    found = []
    for name in names:
        path = EMBEDDINGS / f"{name}.safetensors"
        if not path.exists():
            pytest.skip(f"needs the embeddings of {name}, which are absent here")
        found += measure_task(EmbeddedTask.load(path), methods, [k], range(3))
    tart, probe = (
        {metric: mean(m.metrics[metric] for m in found if m.method == method) for metric in found[0].metrics}
        for method in methods
    )
    assert tart["accuracy"] > probe["accuracy"]
    assert tart["log_loss"] < 0.95 * probe["log_loss"]
    assert tart["calibration_error"] < 0.7 * probe["calibration_error"]


@pytest.mark.slow
def test__reasoner__saved_embeddings__same_answers_as_the_pipeline() -> None:
    from transformers_tart.commands.demo import load_demo_task

    task = load_demo_task("topic")
    classify = pipeline("tart-classification", views="mean_all", hints=None, examples=task.examples)
    known = classify.model.support
    new = classify.model.encode_support({"text": task.texts, "label": task.labels}, classify.tokenizer)
    rows = EmbeddedTask(
        "topic", torch.cat([known.embeddings, new.embeddings]), torch.cat([known.labels, new.labels]), len(known)
    )
    (found,) = measure_task(rows, {"tart": ReasonerPredictor(shared_reasoner())}, [len(known)], [0])
    scores = score_all(classify, task.texts)
    assert found.metrics["accuracy"] == pytest.approx((scores.argmax(-1) == new.labels).float().mean().item())
    expected = torch.nn.functional.nll_loss(scores.double().log(), new.labels).item()
    assert found.metrics["log_loss"] == pytest.approx(expected, abs=1e-4)
