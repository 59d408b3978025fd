"""Fixtures that every test may use, and settings of all tests."""

import os


os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
# of processes that tests start; threads that wait in a loop take the cores from those beside them
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import logging
from collections.abc import Iterator

import pytest
import torch
from helpers.builders import BACKBONES, SHARED, build_backbone, build_tokenizer
from helpers.full_disk import small_disk  # noqa: F401
from hypothesis import settings
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils.logging import warning_once

from transformers_tart.backbones import dtype


torch.set_num_threads(1)  # the tensors are tiny; more threads cost more than they give
settings.register_profile("suite", max_examples=10, deadline=None, derandomize=True, database=None)
settings.load_profile("suite")


@pytest.fixture(autouse=True, scope="session")
def no_bfloat16_units() -> Iterator[None]:
    """Every CPU counts as one without bfloat16 units, so that predictions are the same on all of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dtype, "BFLOAT16_UNITS", ())
        yield


@pytest.fixture(params=list(BACKBONES))
def backbone(request: pytest.FixtureRequest) -> PreTrainedModel:
    """Each kind of backbone in turn."""
    return build_backbone(request.param)


@pytest.fixture
def all_logs(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Records at every level of this package and of transformers; what is said once is said again in each test."""
    warning_once.cache_clear()
    library = logging.getLogger("transformers")
    level = library.level
    library.addHandler(caplog.handler)
    library.setLevel(logging.DEBUG)
    caplog.set_level(logging.DEBUG)
    yield caplog
    library.removeHandler(caplog.handler)
    library.setLevel(level)


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    """The word tokenizer."""
    return build_tokenizer()


@pytest.fixture
def stories_folder() -> str:
    """The real tiny language model; the test is skipped where it is absent."""
    path = SHARED / "backbones" / "stories260K"
    if not path.exists():
        pytest.skip("needs the real tiny language model, which is absent here")
    return str(path)
