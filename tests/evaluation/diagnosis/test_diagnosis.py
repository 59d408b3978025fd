"""The diagnosis: gaps add up, and unmeasured parts are left out."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.builders import build_reasoner, draw_task, shared_reasoner
from torch import Generator, Tensor

from transformers_tart.cli import main
from transformers_tart.evaluation.diagnosis import (
    Diagnosis,
    advise,
    as_json,
    diagnose,
    format_diagnosis,
    gaps,
    held_out,
)
from transformers_tart.evaluation.diagnosis.features import Shape, draw_episodes
from transformers_tart.evaluation.diagnosis.shift import (
    RegretPrediction,
    Relation,
    predict_regret,
    reasoner_loss,
    relate,
    seen_log_loss,
)
from transformers_tart.evaluation.methods.base import Support, TaskContext
from transformers_tart.evaluation.methods.models import Models
from transformers_tart.evaluation.metrics import log_loss
from transformers_tart.evaluation.report.statistics import Estimate
from transformers_tart.evaluation.tasks import Task
from transformers_tart.inputs.views import View


SHAPE = Shape(k=16, queries=12, classes=2)
WORDS = [("sun", "rain", "wind", "snow"), ("tea", "milk", "wine", "beer"), ("one", "two", "six", "ten")]


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def make_task(classes: int = 2, test_labels: list[int] | None = None) -> Task:
    """Return texts whose first word determines the class."""
    labels = [i % classes for i in range(40)]
    train, test = (
        [f"{WORDS[y][i % 4]} and {WORDS[y][i % 3]}, {i + at}" for i, y in enumerate(labels)] for at in (0, 60)
    )
    return Task("made", tuple("abc"[:classes]), train, labels, test, test_labels or labels)


def run_diagnosis(task: Task, **options: object) -> Diagnosis:
    context = TaskContext(task, Models("mini", views="mean_all"))
    return diagnose(context, 16, [0, 1], **{"layers": [0, -1], "num_tasks": 20, **options})  # type: ignore[arg-type]


def outcomes(**accuracies: Sequence[float]) -> dict[str, gaps.Outcome]:
    return {name: gaps.Outcome(tuple(values), (0.5,) * len(values)) for name, values in accuracies.items()}


def fail(context: TaskContext, support: Support) -> Tensor:
    raise ValueError("has no vocabulary")


@pytest.fixture(scope="module")
def diagnosis() -> Diagnosis:
    return run_diagnosis(make_task(), methods={"prompting": fail})


def test__reasoner_loss__episode__that_of_the_architecture() -> None:
    for episode in draw_episodes(shared_reasoner(), SHAPE, 5, seeded(2)):
        loss = reasoner_loss(shared_reasoner(), episode)
        architecture = shared_reasoner().architecture  # after the projection, as episodes are
        with torch.no_grad():
            state = architecture.prepare(episode.support[None], episode.labels[None], 2)
            logits = architecture.query(state, episode.query[None])[0]
        assert episode.truth is not None
        assert loss == pytest.approx(log_loss(logits.softmax(-1), episode.truth), abs=1e-4)


def test__seen_log_loss__class_without_example__left_out() -> None:
    probabilities = torch.tensor([[0.5, 0.0, 0.5], [0.2, 0.6, 0.2], [0.1, 0.1, 0.8]]).double()
    found = seen_log_loss(probabilities, torch.tensor([0, 1, 2]), torch.tensor([2, 0, 2]))
    assert found == pytest.approx(-torch.tensor([0.5, 0.8 / 0.9]).log().mean().item())
    with pytest.raises(ValueError, match="No query is of a class that has an example"):
        seen_log_loss(probabilities, torch.tensor([1, 1, 1]), torch.tensor([0, 2]))


def test__relate__known_orders__as_they_are() -> None:
    rising = list(range(1, 31))
    assert relate(rising, [x**3 for x in rising]).correlation == pytest.approx(1.0)
    assert relate(rising, [-x for x in rising]).is_shown
    assert not relate(rising, torch.randn(30, generator=seeded()).tolist()).is_shown
    assert not relate(rising, [1.0] * 30).is_shown


def test__predict_regret__nearest_tasks__their_quantiles_and_none_beyond() -> None:
    both = (torch.linspace(1, 10, 200).tolist(),) * 2
    near, beyond = (predict_regret(distance, both, both) for distance in (2.0, 11.0))
    assert near.low is not None
    assert near.high is not None
    assert 1.0 < near.low < 2.0 < near.high < 4.0
    assert (beyond.neighbors, beyond.low, beyond.high) == (0, None, None)


def test__decompose__all_methods__parts_add_up() -> None:
    given = {"fine_tune": [80, 82, 84], "logistic_regression": [75, 77, 76], "prompting": [60, 62, 61]}
    found = gaps.decompose(outcomes(**given, tart=[72, 74, 73]), {})
    parts = [found.performance, found.representation, found.reasoning, found.remaining, found.closed]
    means = [part.mean for part in parts if part is not None]
    assert means == pytest.approx([21.0, 6.0, 15.0, 3.0, 12 / 15])
    assert gaps.ratio([2.0, 4.0, 6.0], [4.0, 8.0, 12.0]).half_width == pytest.approx(0.0)


def test__decompose__no_prompting_or_unsure_gap__nothing_invented() -> None:
    without = gaps.decompose(outcomes(logistic_regression=[75, 77], tart=[75, 76]), {"prompting": "no head"})
    assert (without.performance, without.representation, without.reasoning, without.closed) == (None,) * 4
    unsure = gaps.decompose(outcomes(logistic_regression=[60, 80], tart=[75, 76], prompting=[65, 70]), {})
    single = gaps.decompose(outcomes(logistic_regression=[80], tart=[75], prompting=[65]), {})
    assert (unsure.closed, single.closed) == (None, None)


def test__plan_rounds__balanced_and_lone_examples__one_of_each_class() -> None:
    assert [chosen.tolist() for chosen in held_out.plan_rounds(torch.tensor([0, 1, 2, 0, 1, 0]))] == [
        [0, 1],
        [3, 4],
        [5],
    ]
    rounds = held_out.plan_rounds(torch.arange(400) % 2)
    assert (len(rounds), sorted(torch.cat(rounds).tolist())) == (64, list(range(400)))


def test__predict_held_out__each_round__what_the_others_say() -> None:
    support, labels, _, _ = (part[0] for part in draw_task(12, 1, gap=0.5))
    predictions = held_out.predict_held_out(shared_reasoner(), support, labels, 2)
    others = torch.tensor([0, 1, 2, 3, 6, 7, 8, 9, 10, 11])
    with torch.no_grad():
        logits = shared_reasoner()(support[None, others], labels[None, others], support[None, 4:6]).logits[0]
    assert [predictions[i].confidence for i in (4, 5)] == pytest.approx(logits.softmax(-1).amax(-1).tolist(), abs=1e-4)
    assert held_out.predict_held_out(shared_reasoner(), support[:2], labels[:2], 2) == {}
    assert list(held_out.predict_held_out(shared_reasoner(), support[:3], labels[:3], 2)) == [0, 2]


@pytest.mark.parametrize(("gap", "is_near_chance"), [(0.0, True), (2.0, False)])
def test__summarize__noise_or_signal__chance_or_not(gap: float, is_near_chance: bool) -> None:
    support, labels, _, _ = (part[0] for part in draw_task(40, 1, gap=gap, seed=4))
    found = held_out.summarize(list(held_out.predict_held_out(shared_reasoner(), support, labels, 2).values()))
    assert found is not None
    assert (found.is_near_chance, found.chance) == (is_near_chance, 0.5)
    assert held_out.summarize([]) is None


def test__score_layers__one_clearly_better__shown_and_others_not() -> None:
    together = {i: held_out.Prediction(i % 2 == 0, 0.7, 0) for i in range(60)}
    right, nearly = (
        {i: held_out.Prediction(i % 2 == 0 or i in some, 0.7, 0) for i in range(60)} for some in (range(60), [1])
    )
    places = held_out.list_places([View("mean", layers="all")], 5)
    scores = held_out.score_layers(together, {places[0]: right, places[3]: nearly, places[4]: {}})
    assert scores is not None
    assert [(score.view, score.layer) for score in scores.better] == [("mean", 0)]
    assert (scores.single[1].p_value, scores.single[2].accuracy) == (1.0, 0.0)


def test__choose_layers__indices_of_the_backbone__positions_in_the_embedding() -> None:
    places = held_out.list_places([View("mean", layers="all")], 3)
    chosen = (held_out.choose_layers(None, places, 3), held_out.choose_layers([-1, 0, 2], places, 3))
    assert chosen == ([0, 1, 2], [0, 2])
    with pytest.raises(ValueError, match=r"hidden states 0 to 2, or -3 to -1; it has no \[3\]"):
        held_out.choose_layers([3], places, 3)


def test__choose_layers__several_views__those_that_read_a_layer() -> None:
    places = held_out.list_places([View("one_word", layers="late"), View("last", layers=-1)], 31)
    assert places[0] == ("one_word", 20)
    assert places[-1] == ("last", 30)
    assert held_out.choose_layers(None, places, 31) == list(range(12))
    assert held_out.choose_layers([-1], places, 31) == [10, 11]
    with pytest.raises(ValueError, match=r"read the hidden states \[20, .*, 30\] and not \[0, 5\]"):
        held_out.choose_layers([5, 0, 20], places, 31)


def test__predict_held_out__several_views__mixture_of_the_others() -> None:
    support, labels, _, _ = (part[0] for part in draw_task(12, 1, gap=0.5))
    views, others = (support, support[:, :2].exp()), torch.tensor([0, 1, 2, 3, 6, 7, 8, 9, 10, 11])
    predictions = held_out.predict_held_out(shared_reasoner(), views, labels, 2)
    known, asked = ([view[None, i] for view in views] for i in (others, torch.tensor([4, 5])))
    with torch.no_grad():
        logits = shared_reasoner()(known, labels[None, others], asked).logits[0]
    assert [predictions[i].confidence for i in (4, 5)] == pytest.approx(logits.softmax(-1).amax(-1).tolist(), abs=1e-4)


def test__fit_curve__straight_line__its_slope() -> None:
    found = gaps.fit_curve({16: [60.0, 62.0], 32: [65.0, 67.0], 64: [70.0, 72.0]})
    assert found.slope == Estimate(pytest.approx(5.0), pytest.approx(0.0))
    assert gaps.fit_curve({4: [50.0]}).slope is None
    assert (gaps.curve_sizes(64, 2), gaps.curve_sizes(64, 20), gaps.curve_sizes(3, 2)) == (
        [16, 32, 64],
        [32, 64],
        [3],
    )


@pytest.mark.slow
def test__diagnose__separable_task__says_so(diagnosis: Diagnosis) -> None:
    assert diagnosis.gaps.accuracies["tart"].mean > 80
    assert diagnosis.held_out is not None
    assert not diagnosis.held_out.is_near_chance
    assert list(diagnosis.curve.accuracies) == [4, 8, 16]
    json.loads(as_json(diagnosis), parse_constant=pytest.fail)
    page = format_diagnosis(diagnosis)
    assert "Not measured: in-context prompting. has no vocabulary" in page
    assert "Not measured: fine-tuning. It was left out." in page
    assert "Without prompting" in page
    assert "None" not in page


@pytest.mark.slow
def test__diagnose__other_test_labels__what_support_says_unchanged(diagnosis: Diagnosis) -> None:
    found = run_diagnosis(make_task(test_labels=[0, 0, 1, 1] * 10))
    assert found.gaps.accuracies["tart"].mean < 80
    assert (found.shift, found.held_out, found.layers) == (diagnosis.shift, diagnosis.held_out, diagnosis.layers)


@pytest.mark.slow
def test__diagnose__failing_tart_or_equal_seeds__said() -> None:
    with pytest.raises(ValueError, match="has no vocabulary"):
        run_diagnosis(make_task(), methods={"tart": fail}, layers=[0])
    with pytest.raises(ValueError, match="at least one, each once"):
        diagnose(TaskContext(make_task(), Models("mini")), 16, [1, 1])


@pytest.mark.slow
def test__diagnose__gpt2_reasoner_and_three_classes__no_regret_predicted(tmp_path: Path) -> None:
    build_reasoner("gpt2").save_pretrained(tmp_path)
    context = TaskContext(make_task(classes=3), Models("mini", reasoner=str(tmp_path)))
    found = diagnose(context, 21, [0], layers=[-1], num_tasks=20)
    assert (found.predicted_regret, found.synthetic) == (None, Shape(21, 40, 2))
    assert found.shift.compared.startswith("whitened components")
    assert "Nothing is predicted" in format_diagnosis(found)


def test__advise__measured_numbers__words_that_follow(diagnosis: Diagnosis) -> None:
    given = {"fine_tune": [90, 91], "logistic_regression": [75, 76], "prompting": [85, 86], "tart": [70, 71]}
    steep = gaps.fit_curve({16: [60.0, 61.0], 32: [65.0, 66.0], 64: [70.0, 71.0]})
    flat = gaps.fit_curve({16: [70.0, 70.1], 64: [70.0, 70.1]})
    measured = replace(
        diagnosis,
        gaps=gaps.decompose(outcomes(**given), {}),
        regret=Estimate(0.2, 0.1),
        curve=steep,
        held_out=None,
        layers=None,
    )
    limits, size, layers, trust = advise(measured)
    for part in ("fine-tuning minus linear probe: 15.0", "probe minus TART: 5.0", "minus linear probe: 10.0"):
        assert part in limits
    assert "k = 128 would reach about 76%" in size
    assert "unknown" in layers
    assert "log loss that is 0.200 lower" in trust
    assert "hardly worth it" in advise(replace(measured, curve=flat))[1]


def test__page__every_finding__described(diagnosis: Diagnosis) -> None:
    shown, hidden = Relation(20, 0.7, 0.4, 0.9), Relation(20, -0.1, -0.5, 0.3)
    score = held_out.LayerScore("one_word", 3, 0.9, 0.01)
    found = replace(
        diagnosis,
        shift=replace(diagnosis.shift, percentile=97.0),
        predicted_regret=RegretPrediction(hidden, shown, 20, -0.1, 0.0, 0.1),
        regret=Estimate(0.2, 0.1),
        held_out=held_out.HeldOut(20, 0.55, 0.4, 0.7, 0.5, 0.4, 0.8, Estimate(0.25, 0.1)),
        layers=held_out.LayerScores(20, 0.55, (score,)),
    )
    page = format_diagnosis(found)
    for part in (
        "read one_word 3 alone (the view one_word with `layers=3`): it is right on 90%, while all layers together are "
        "right on 55%",
        "**Trust:** with care; the accuracy on held-out examples, 55%, is not shown to be above chance, 50%; the prob",
        "on held-out examples 80% on average, where 55% are right; the task lies outside",
        "farther ones had more regret; another classifier has a log loss",
        "moved away from it: rank correlation +0.70 (+0.40 to +0.90, 20 tasks): a strong relation",
        "Measured on the test texts: +0.200 ± 0.100, more than predicted.",
        "| one_word 3 | 90.0 | 0.01 |",
    ):
        assert part in page
    beyond = replace(found, predicted_regret=RegretPrediction(hidden, hidden, 0), held_out=None, layers=None)
    page = format_diagnosis(beyond)
    for part in (
        "No synthetic task is as far as this one",
        "do not show that this costs anything",
        "no example of the support sets could be held out",
        "unknown; no class has a second example",
    ):
        assert part in page


@pytest.mark.slow
def test__diagnose_command__file__page_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task, file, output = make_task(), tmp_path / "made.jsonl", tmp_path / "found.json"
    texts = task.train_texts + task.test_texts
    rows = [{"text": text, "label": i % 2, "split": "train" if i < 40 else "test"} for i, text in enumerate(texts)]
    file.write_text("\n".join(map(json.dumps, rows)))
    command = ["diagnose", "--model", "mini", "--task", str(file), "--no-fine-tuning", "--device", "cpu"]
    options = ["--k", "8", "--seeds", "2", "--tasks", "20", "--layers", "-1", "--json", str(output)]
    assert main([*command, *options]) == 0
    page = capsys.readouterr().out
    assert page.startswith("# made: mini with the reasoner kernel")
    assert "## Advice" in page
    found = json.loads(output.read_text())
    assert sorted(found["gaps"]["accuracies"]) == ["logistic_regression", "prompting", "tart"]
    assert {score["layer"] for score in found["layers"]["single"]} == {4}
    for score in found["layers"]["single"]:
        assert f"| {score['view']} 4 |" in page
    assert main([*command, "--k", "64"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "k is 64" in captured.err
