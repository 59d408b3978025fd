"""The names that users rely on, and what importing the package does."""

import subprocess
import sys

import pytest
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
)
from transformers.pipelines import PIPELINE_REGISTRY

import transformers_tart
from transformers_tart import (
    SupportSet,
    TartClassificationPipeline,
    TartConfig,
    TartForSequenceClassification,
    TartReasoner,
    TartReasonerConfig,
)
from transformers_tart.bench import SUMMARIES
from transformers_tart.bench.pairs import PAIRS
from transformers_tart.cli import main
from transformers_tart.commands import evaluate_reasoner, report
from transformers_tart.embeddings import embed
from transformers_tart.evaluation.metrics import METRICS
from transformers_tart.evaluation.report.comparison import METRIC_FORMATS
from transformers_tart.projection import WhitenedPCA


pytestmark = pytest.mark.core


SIDE_EFFECTS = """
import logging, random, sys, warnings
import numpy, torch, transformers, transformers.pipelines
from transformers.models.auto import modeling_auto

def state():
    loggers = {name: logger.level for name, logger in logging.root.manager.loggerDict.items()
               if isinstance(logger, logging.Logger) and not name.startswith("transformers_tart")}
    handlers = [len(logging.getLogger(name).handlers) for name in ("", "transformers")]
    tasks = transformers.pipelines.PIPELINE_REGISTRY.get_supported_tasks()
    return {
        "filters": list(warnings.filters), "root": logging.root.level, "transformers": loggers["transformers"],
        "handlers": handlers, "tasks": [task for task in tasks if task != "tart-classification"],
        "rng": (torch.get_rng_state().tolist(), random.getstate(), str(numpy.random.get_state())),
        "grad": torch.is_grad_enabled(), "dtype": torch.get_default_dtype(), "threads": torch.get_num_threads(),
    }

before = state()
import transformers_tart
after = state()
changed = [key for key in before if before[key] != after[key]]
sys.exit(f"changed by the import: {changed}" if changed else 0)
"""

LAZY_COMMANDS = """
import sys
import transformers_tart

before = set(sys.modules)
from transformers_tart.cli import build_parser
build_parser()
foreign = sorted({name.split(".")[0] for name in set(sys.modules) - before} - {"transformers_tart"})
names = ("bench.workload", "bench.pairs", "evaluation.runner", "evaluation.report", "training.trainer")
ours = [name for name in names if f"transformers_tart.{name}" in sys.modules]
sys.exit(f"imported by the parser: {foreign}, {ours}" if set(foreign) - set(sys.stdlib_module_names) or ours else 0)
"""
# What takes its time to import, and only some functions need.
HEAVY = ("accelerate", "datasets", "evaluate", "matplotlib", "pandas", "peft", "pyarrow", "scipy", "sklearn")
LAZY_PACKAGE = f"""
import sys
from transformers import AutoModel
from transformers.pipelines import PIPELINE_REGISTRY, Pipeline

before = set(sys.modules)
import transformers_tart
sys.exit(", ".join(name for name in {HEAVY} if name in set(sys.modules) - before) or 0)
"""


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120)


def test__package__all__is_pinned() -> None:
    assert transformers_tart.__all__ == [
        "SupportSet",
        "TartAudioConfig",
        "TartClassificationPipeline",
        "TartConfig",
        "TartForAudioClassification",
        "TartForImageClassification",
        "TartForSequenceClassification",
        "TartImageConfig",
        "TartReasoner",
        "TartReasonerConfig",
        "View",
    ]
    assert all(hasattr(transformers_tart, name) for name in transformers_tart.__all__)


def test__package__version__is_the_distribution_s() -> None:
    from importlib.metadata import version

    assert transformers_tart.__version__ == version("transformers-tart")


def test__registration__auto_classes__know_the_models() -> None:
    assert isinstance(AutoConfig.for_model("tart"), TartConfig)
    assert isinstance(AutoConfig.for_model("tart_reasoner"), TartReasonerConfig)
    assert AutoModel._model_mapping[TartConfig] is TartForSequenceClassification
    assert AutoModel._model_mapping[TartReasonerConfig] is TartReasoner
    assert AutoModelForSequenceClassification._model_mapping[TartConfig] is TartForSequenceClassification


def test__registration__pipeline__is_known() -> None:
    _, task, _ = PIPELINE_REGISTRY.check_task("tart-classification")
    assert task["impl"] is TartClassificationPipeline
    assert task["type"] == "text"


@pytest.mark.slow
def test__import__in_a_new_process__registers_and_changes_nothing_else() -> None:
    result = run_python("-c", SIDE_EFFECTS)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.slow
def test__import__warnings_as_errors__works() -> None:
    result = run_python("-W", "error", "-c", "import transformers_tart")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.slow
@pytest.mark.parametrize("script", [LAZY_PACKAGE, LAZY_COMMANDS])
def test__import__package_and_parser_of_commands__what_is_heavy_waits(script: str) -> None:
    result = run_python("-c", script)
    assert (result.returncode, result.stdout, result.stderr.strip()) == (0, "", "")


def test__command__version__is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"transformers-tart {transformers_tart.__version__}\n"


def test__choices__names_in_help__those_of_what_is_imported_later() -> None:
    assert list(SUMMARIES) == list(PAIRS)
    assert list(evaluate_reasoner.METRICS) == list(METRICS)
    assert list(report.METRIC_NAMES) == list(METRIC_FORMATS)


@pytest.mark.parametrize("method", ["from_backbone", "from_pretrained", "save_pretrained", "push_to_hub", "forward"])
def test__model__public_methods__exist_and_are_described(method: str) -> None:
    assert getattr(TartForSequenceClassification, method).__doc__


def test__research_surface__names__exist_and_are_described() -> None:
    members = (SupportSet.to, SupportSet.save, TartReasoner.prepare, TartReasoner.query, WhitenedPCA.fit)
    assert all(member.__doc__ for member in (embed, *members))
    assert TartClassificationPipeline.set_examples.__doc__
