"""What runs on an accelerator gives what it gives on a CPU. `TART_TEST_DEVICE=cpu` tries the tests themselves."""

import gc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.builders import build_backbone, build_tokenizer, compose, make_pipeline, make_texts, score_all
from helpers.prompts_given import ask, build_long, encoder_of, expected_support, read_queries, read_support, write
from helpers.training import PAPER, SHORT, TINY_GPT2
from transformers.utils import is_flash_attn_2_available

from transformers_tart.backbones.dtype import choose_dtype
from transformers_tart.embeddings import encode_texts
from transformers_tart.training.trainer import train_reasoner


pytestmark = pytest.mark.device

TEXTS = make_texts(40, seed=9, max_words=20)


def test__pipeline__on_device__same_scores_as_on_cpu(device: torch.device) -> None:
    expected = score_all(make_pipeline(device="cpu"), TEXTS)
    classify = make_pipeline(device=device)
    assert {parameter.device.type for parameter in classify.model.parameters()} == {device.type}
    torch.testing.assert_close(score_all(classify, TEXTS), expected, atol=1e-3, rtol=0)


def test__pipeline__bfloat16__nearly_the_scores_of_float32(device: torch.device) -> None:
    expected = score_all(make_pipeline(device="cpu"), TEXTS)
    model = compose()
    model.backbone.to(torch.bfloat16)
    torch.testing.assert_close(score_all(make_pipeline(model, device=device), TEXTS), expected, atol=0.1, rtol=0)


def test__dtype__auto__bfloat16_where_the_device_supports_it(device: torch.device) -> None:
    if device.type != "cuda":
        pytest.skip("needs CUDA")
    supported = torch.cuda.is_bf16_supported(False)
    assert choose_dtype(device, build_backbone("llama").config) == (torch.bfloat16 if supported else "auto")


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "bert"])
def test__encode_texts__batched_on_device__as_one_at_a_time_on_cpu(name: str, device: torch.device) -> None:
    backbone, tokenizer = build_backbone(name), build_tokenizer()
    expected = encode_texts(backbone, tokenizer, TEXTS, layers="all", batch_size=1)
    found = encode_texts(backbone.to(device), tokenizer, TEXTS, layers="all")
    torch.testing.assert_close(found.cpu(), expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("attention", ["eager", "sdpa", "flash_attention_2"])
@pytest.mark.parametrize("protocol", ["vanilla", "loo"])
def test__shared_prefix__any_attention__as_whole_prompts_on_cpu(
    protocol: str, attention: str, dtype: torch.dtype, device: torch.device
) -> None:
    if attention == "flash_attention_2" and (dtype == torch.float32 or not is_flash_attn_2_available()):
        pytest.skip("needs flash-attn and bfloat16")
    backbone = build_long("llama")
    pooling = "mean" if protocol == "vanilla" else "last"
    written = write(backbone)
    expected = expected_support(backbone, written, protocol, pooling), read_queries(backbone, written, pooling)
    backbone.to(device, dtype).set_attn_implementation(attention)
    encoder = encoder_of(backbone, "all", pooling)
    support, prefix = read_support(encoder, written, protocol)
    tolerance = {"atol": 1e-3, "rtol": 1e-3} if dtype == torch.float32 else {"atol": 0.3, "rtol": 0.1}
    for found, whole in zip((support, encoder.embed(prefix, ask(written))), expected, strict=True):
        torch.testing.assert_close(found.float().cpu(), whole, **tolerance)


@pytest.fixture
def little_memory(device: torch.device) -> Iterator[None]:
    """A limit of 300 MB beyond what is taken."""
    if device.type != "cuda":
        pytest.skip("needs CUDA, whose memory can be limited")
    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(device) + 300e6) / total, device)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0, device)


@pytest.mark.usefixtures("little_memory")
def test__encode_texts__out_of_memory__smaller_batches_with_the_same_embeddings(
    device: torch.device, all_logs: pytest.LogCaptureFixture
) -> None:
    texts = [f"w{i % 90} " * 60 for i in range(270)]
    backbone, tokenizer = build_backbone("llama", intermediate_size=8192), build_tokenizer()
    expected = encode_texts(backbone, tokenizer, texts[:90])
    found = encode_texts(backbone.to(device), tokenizer, texts)  # 16,384 tokens take 0.5 GB for an activation
    assert "Out of memory; batches of" in all_logs.text
    torch.testing.assert_close(found.cpu(), expected.repeat(3, 1, 1), atol=1e-3, rtol=1e-3)


def test__pipeline__compiled__same_scores(device: torch.device) -> None:
    expected = score_all(make_pipeline(device="cpu"), TEXTS)
    classify = make_pipeline(device=device)
    classify.model.backbone.compile(dynamic=True)
    torch.testing.assert_close(score_all(classify, TEXTS), expected, atol=1e-3, rtol=0)


def test__trainer__interrupted_and_resumed_on_device__same_tasks(device: torch.device, tmp_path: Path) -> None:
    if device.type != "cpu" and device != torch.accelerator.current_accelerator():
        pytest.skip("training takes the first accelerator")
    args = replace(SHORT, mixed_precision="no")
    whole = train_reasoner(TINY_GPT2, tmp_path / "whole", args, PAPER)
    for _ in range(args.max_steps):
        parts = train_reasoner(TINY_GPT2, tmp_path / "parts", args, PAPER, resume=True, max_minutes=0)
    for name, tensor in parts.state_dict().items():
        torch.testing.assert_close(tensor, whole.state_dict()[name], atol=1e-4, rtol=0)
