"""The device of these tests."""

import os

import pytest
import torch

from transformers_tart.bench.machine import default_device


@pytest.fixture
def device() -> torch.device:
    """The device that `TART_TEST_DEVICE` names, else the accelerator; the test is skipped where there is none."""
    chosen = torch.device(os.environ.get("TART_TEST_DEVICE") or default_device())
    if chosen.type == "cpu" and "TART_TEST_DEVICE" not in os.environ:
        pytest.skip("needs an accelerator")
    return chosen
