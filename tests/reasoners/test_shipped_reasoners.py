"""The reasoners inside the package: loaded by name, small, and as good as their cards say."""

import json
import sys
from pathlib import Path
from subprocess import run

import pytest
import torch
from helpers.builders import build_backbone, build_reasoner, shared_reasoner
from safetensors import safe_open
from torch import Generator
from transformers import AutoModel

from transformers_tart import TartForSequenceClassification, TartReasoner
from transformers_tart.evaluation.methods.baselines import BASELINES
from transformers_tart.reasoners import EMBEDDED, locate
from transformers_tart.training.presets import PRESETS
from transformers_tart.training.sources import RichTasks
from transformers_tart.training.validation import Validation, overall


LARGEST = 2 * 2**20  # bytes of a folder
# presets by which a reasoner was trained, one after the other, and their records
RECIPES = {"kernel": {"kernel": "training_base.json", "weighing": "training.json"}}
FRESH = 4242  # seed of tasks that no card tells of
READ_MANY = """
import resource, sys, torch
from transformers_tart import TartReasoner
classes = int(sys.argv[1])
generator = torch.Generator().manual_seed(0)
labels = torch.arange(10_000) % classes
means = torch.randn(classes, 384, generator=generator) * 0.3
support = torch.randn(10_000, 384, generator=generator) + means[labels]
truth = torch.randint(classes, (200,), generator=generator)
query = torch.randn(200, 384, generator=generator) + means[truth]
reasoner = TartReasoner.from_pretrained("kernel").eval()
with torch.inference_mode():
    state = reasoner.prepare(support[None], labels[None])
    guesses = reasoner.query(state, query[None])[0].argmax(-1)
print((guesses == truth).float().mean().item(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.parametrize("name", EMBEDDED)
def test__shipped_reasoner__files__small_half_precision_and_no_code(name: str) -> None:
    files = {path.name: path.stat().st_size for path in EMBEDDED[name].iterdir()}
    records = RECIPES.get(name, {name: "training.json"}).values()
    assert set(files) == {"README.md", "config.json", "model.safetensors", *records}
    assert sum(files.values()) < LARGEST
    assert "auto_map" not in json.loads((EMBEDDED[name] / "config.json").read_text())
    with safe_open(EMBEDDED[name] / "model.safetensors", "pt") as weights:
        assert {weights.get_tensor(key).dtype for key in weights.keys()} == {torch.float16}  # noqa: SIM118


@pytest.mark.parametrize("name", EMBEDDED)
def test__shipped_reasoner__by_name__float32_and_as_its_preset_says(name: str) -> None:
    reasoner = TartReasoner.from_pretrained(name)
    assert {parameter.dtype for parameter in reasoner.parameters()} == {torch.float32}
    for preset, file in RECIPES.get(name, {name: "training.json"}).items():
        for field, value in PRESETS[preset].config.items():
            assert getattr(reasoner.config, field) == value
        record = json.loads((EMBEDDED[name] / file).read_text())
        assert record["history"][-1]["step"] == record["arguments"]["max_steps"]
        assert record["arguments"]["max_steps"] == PRESETS[preset].arguments.max_steps
        assert record["arguments"]["tasks"]["source"] == type(PRESETS[preset].tasks).__name__


def test__shipped_reasoner__name_of_a_folder__is_the_folder(tmp_path: Path) -> None:
    assert locate(Path("kernel")) == Path("kernel")
    assert locate("./kernel") == "./kernel"
    assert locate("org/kernel") == "org/kernel"
    with pytest.raises(OSError, match="nothing_here"):
        TartReasoner.from_pretrained(tmp_path / "nothing_here")


@pytest.mark.parametrize("name", EMBEDDED)
def test__from_backbone__reasoner_by_name__composed(name: str) -> None:
    model = TartForSequenceClassification.from_backbone(build_backbone("llama"), reasoner=name)
    assert model.config.reasoner.architecture == PRESETS[name].config["architecture"]


@pytest.mark.slow
def test__kernel__fresh_synthetic_tasks__better_than_logistic_regression() -> None:
    shapes = ((16, 2), (64, 2), (20, 5), (80, 5), (160, 40))
    tasks = RichTasks(validation_shapes=shapes, validation_tasks=20).validation(Generator().manual_seed(FRESH))
    validation = Validation(tasks, {"probe": BASELINES["logistic_regression"]})
    ours, probe = validation.measure(shared_reasoner()), validation.reference_scores["probe"]
    assert overall(ours).accuracy > overall(probe).accuracy
    assert overall(ours).loss < 0.9 * overall(probe).loss
    for shape, score in ours.items():
        assert score.loss < probe[shape].loss, shape


@pytest.mark.parametrize("seed", range(5))
def test__kernel__everything_permuted__no_probability_moves(seed: int) -> None:
    generator = Generator().manual_seed(seed)
    classes, size, dim = 2 + 3 * seed, 64, 96
    labels = torch.arange(size) % classes
    support = torch.randn(size, dim, generator=generator) + torch.randn(classes, dim, generator=generator)[labels]
    query = torch.randn(50, dim, generator=generator)
    examples, dims, names = (torch.randperm(n, generator=generator) for n in (size, dim, classes))
    with torch.inference_mode():
        expected = shared_reasoner()(support[None], labels[None], query[None]).logits.softmax(-1)
        found = shared_reasoner()(
            support[examples][:, dims][None], names[labels[examples]][None], query[:, dims][None]
        ).logits.softmax(-1)
    assert (found[..., names] - expected).abs().max() < 1e-5


def test__shipped_reasoner__own_reasoner_in_a_folder_of_that_name__its_own_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = build_reasoner()
    own.save_pretrained("kernel")
    for loaded in (AutoModel.from_pretrained("kernel"), TartReasoner.from_pretrained("./kernel")):
        assert loaded.config.hidden_size == own.config.hidden_size
    model = TartForSequenceClassification.from_backbone(build_backbone("llama"), own)
    model.save_pretrained("task/kernel", include_backbone=True)
    monkeypatch.chdir(tmp_path / "task")
    weights = TartForSequenceClassification.from_pretrained("kernel").reasoner.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in own.state_dict().items())


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak memory as Linux counts it")
@pytest.mark.parametrize("classes", [pytest.param(2, marks=pytest.mark.exhaustive), 20])
def test__kernel__ten_thousand_examples__within_four_gigabytes(classes: int) -> None:
    done = run(
        [sys.executable, "-c", READ_MANY, str(classes)], capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    accuracy, kilobytes = map(float, done.stdout.split())
    assert accuracy > 0.95
    assert kilobytes < 4e6
