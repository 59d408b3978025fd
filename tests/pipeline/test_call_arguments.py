"""Arguments that pipelines of text classification take: followed, without effect, or refused by name."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy
import pandas as pd
import pytest
from helpers.builders import compose, make_examples, make_pipeline, make_texts
from helpers.media_backbones import make_media, make_media_examples, processor_of, shared_media
from transformers import Trainer, TrainingArguments, pipeline
from transformers.tokenization_utils_base import PaddingStrategy, TruncationStrategy

from transformers_tart import TartClassificationPipeline, TartConfig, View


pytestmark = pytest.mark.core


TEXTS = make_texts(5, seed=3)
LONG = "w1 w2 w3 w4 w5 w6 w7 w8"


@pytest.fixture(scope="module")
def classify() -> TartClassificationPipeline:
    """A fitted pipeline; tests leave its support set as it is."""
    return make_pipeline(compose(views="plain"))


@pytest.mark.parametrize(
    "arguments",
    [
        {"truncation": True},
        {"truncation": True, "max_length": 64, "padding": True},
        {"truncation": "longest_first", "padding": "max_length"},
        {"truncation": "only_first"},
        {"truncation": TruncationStrategy.LONGEST_FIRST, "padding": PaddingStrategy.LONGEST},
        {"truncation": False},
        {"truncation": None, "padding": None, "max_length": None},
        {"pad_to_multiple_of": 8, "return_token_type_ids": False, "return_tensors": "pt", "verbose": False},
        {"add_special_tokens": True, "stride": 0, "is_split_into_words": False},
        {"batch_size": numpy.int64(2), "num_workers": 2},
        {"top_k": ""},
        {"function_to_apply": "SOFTMAX"},
    ],
)
def test__call__arguments_of_text_classification__change_nothing(
    arguments: dict, classify: TartClassificationPipeline
) -> None:
    expected = [pytest.approx(each, abs=1e-6) for each in classify(TEXTS)]  # other batches change the last digits
    assert classify(TEXTS, **arguments) == expected
    assert make_pipeline(classify.model, examples=None, **arguments)(TEXTS) == expected


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        *(({"max_length": value}, ValueError, "max_length is") for value in (0, -3, 2.5, True, "64", Fraction(4))),
        *(({"top_k": value}, ValueError, "top_k is") for value in (0, -1, 2.0, True, "all", [1])),
        *(({"batch_size": value}, ValueError, "batch_size is") for value in (0, -1, 2.0, True, "8")),
        ({"function_to_apply": "argmax"}, ValueError, "function_to_apply is"),
        ({"function_to_apply": 3}, ValueError, "function_to_apply is"),
        ({"add_special_tokens": False}, ValueError, "add_special_tokens is False; .* differently from the examples"),
        ({"stride": 2}, ValueError, "stride is 2"),
        ({"is_split_into_words": True}, ValueError, "is_split_into_words is True"),
        ({"padding": "shortest"}, ValueError, "padding is 'shortest'"),
        ({"truncation": "only_second"}, ValueError, "truncation is 'only_second'"),
        ({"truncation": 1}, ValueError, "truncation is 1"),
        ({"return_all_scores": True}, TypeError, r"'return_all_scores'.*pass top_k=None"),
        ({"maxlength": 3}, TypeError, r"unexpected keyword arguments \['maxlength'\]"),
    ],
)
def test__call__argument_that_cannot_be_followed__named(
    arguments: dict, error: type[Exception], message: str, classify: TartClassificationPipeline
) -> None:
    with pytest.raises(error, match=message):
        classify(TEXTS, **arguments)
    with pytest.raises(error, match=message):
        make_pipeline(classify.model, examples=None, **arguments)


@pytest.mark.parametrize("value", [0, -3, 2.5, True, "64"])
def test__max_length__of_configs__checked_alike(value: Any) -> None:
    for make in (TartConfig, compose):
        with pytest.raises(ValueError, match="max_length"):
            make(max_length=value)
    config = TartConfig(max_length=8)
    with pytest.raises(ValueError, match="max_length"):
        config.max_length = value
    assert config.max_length == 8


def test__max_length__of_numpy__as_of_python(classify: TartClassificationPipeline) -> None:
    assert classify(LONG, max_length=numpy.int64(3)) == classify(LONG, max_length=3) == classify("w1 w2 w3")
    config = TartConfig(max_length=numpy.int64(3))
    assert type(config.max_length) is int
    assert "3" in config.to_json_string()


def test__truncation__false_and_a_text_too_long__refused(classify: TartClassificationPipeline) -> None:
    with pytest.raises(ValueError, match="Input 1 has 8 tokens, of which 5 are read, and truncation is False"):
        classify(["w1", LONG], truncation=False, max_length=5)
    with pytest.raises(ValueError, match="The input has 70 tokens, of which 64 are read"):
        classify("w1 " * 70, truncation=False)
    with pytest.raises(ValueError, match="with a prompt of examples"):
        make_pipeline(compose(protocol="vanilla"), examples=make_examples(4))("w1", truncation=False)


def test__truncation__false_with_templates__texts_that_would_be_cut_refused() -> None:
    echo = View("echo", "w1 {text} w2 w3 {text}", "mean")  # whose context of 64 tokens leaves 30 for each copy
    for views in ([echo], [View("plain", None), echo]):
        classify = make_pipeline(compose(views=views))
        assert classify(["w1 " * 30, "w2"], truncation=False) == classify(["w1 " * 30, "w2"])
        with pytest.raises(ValueError, match="Input 1 has 31 tokens, of which 30 are read, and truncation is False"):
            classify(["w1", "w1 " * 31], truncation=False)
        assert classify("w1 w2", truncation=False, max_length=2)
        with pytest.raises(ValueError, match="The input has 3 tokens, of which 2 are read, and truncation is False"):
            classify("w1 w2 w3", truncation=False, max_length=2)
    # a pair in a template of single texts is one text, with a line break where the tokenizer has one
    pair = {"text": "w1 " * 20, "text_pair": "w2 " * 20}
    with pytest.raises(ValueError, match="The input has 4. tokens, of which 30 are read"):
        make_pipeline(compose(views=[echo]))(pair, truncation=False)


@pytest.mark.parametrize("arguments", [{"truncation": "only_first"}, {"return_token_type_ids": False}])
def test__pairs__arguments_that_change_their_answers__refused(
    arguments: dict, classify: TartClassificationPipeline
) -> None:
    pair = {"text": "w1", "text_pair": "w2"}
    assert classify(pair)
    with pytest.raises(ValueError, match=f"Input 1 is a pair of texts, for which {next(iter(arguments))}"):
        classify(["w1", pair], **arguments)


def test__top_k__any_integer__a_list(classify: TartClassificationPipeline) -> None:
    for top_k in (1, numpy.int64(1), numpy.uint8(1)):
        assert classify("w1", top_k=top_k) == [classify("w1")]
    assert len(classify("w1", top_k=99)) == len(classify("w1", top_k=None)) == 2


def test__media__arguments_of_texts__refused() -> None:
    classify = pipeline(
        "tart-classification",
        model=shared_media("vit"),
        examples=make_media_examples("image"),
        image_processor=processor_of("vit"),
    )
    for arguments in ({"max_length": 3}, {"truncation": True}, {"padding": True}):
        with pytest.raises((TypeError, ValueError), match=f"{next(iter(arguments))} is .*, which is for texts"):
            classify(make_media("image", 2), **arguments)


@pytest.mark.parametrize(
    "unknown", [{"suport": None}, {"position_ids": 1}, {"output_hidden_states": True}, {"temperature": 0.5}]
)
def test__forward__unknown_argument__named(unknown: dict, classify: TartClassificationPipeline) -> None:
    batch = classify.tokenizer("w1 w2", return_tensors="pt")
    with pytest.raises(TypeError, match=next(iter(unknown))):
        classify.model(**batch, **unknown)
    assert classify.model(**batch, output_hidden_states=False, use_cache=False, inputs_embeds=None).logits is not None


def test__forward__unknown_argument_of_media__named() -> None:
    classify = pipeline(
        "tart-classification",
        model=shared_media("vit"),
        examples=make_media_examples("image"),
        image_processor=processor_of("vit"),
    )
    batch = classify.image_processor(images=make_media("image", 1), return_tensors="pt")
    for unknown in ({"interpolate_pos_encoding": True}, {"pixels": batch["pixel_values"]}, {"nonsense": 1}):
        with pytest.raises(TypeError, match=next(iter(unknown))):
            classify.model(**batch, **unknown)


@pytest.mark.slow
def test__trainer__evaluates_and_trains(tmp_path: Path) -> None:
    classify = make_pipeline()
    rows = [{**classify.tokenizer(text), "labels": i % 2} for i, text in enumerate(TEXTS)]
    arguments = TrainingArguments(
        tmp_path,
        save_strategy="no",
        max_steps=1,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=2,
        report_to=[],
        use_cpu=True,
    )
    trainer = Trainer(
        classify.model, arguments, train_dataset=rows, eval_dataset=rows, processing_class=classify.tokenizer
    )
    assert not trainer.model_accepts_loss_kwargs
    trainer.train()
    assert trainer.evaluate()["eval_loss"] > 0


def test__call__scores_of_other_inputs__refused_and_not_shifted() -> None:
    examples, texts = make_examples(8), make_texts(5, seed=3)
    classify = make_pipeline(examples=examples, hints={"own": numpy.zeros((8, 2))})
    expected = classify(texts, hints={"own": numpy.zeros((5, 2))})
    assert classify(texts, hints={"own": pd.DataFrame(numpy.zeros((5, 2)))}) == expected
    for size in (2, 4, 6):
        given = {"hints": {"own": numpy.zeros((size, 2))}}
        with pytest.raises(ValueError, match=rf"'own' has scores of shape \({size}, 2\), and there are [45] inputs"):
            classify(texts, **given)
        with pytest.raises(ValueError, match="give a row for each"):
            list(classify((text for text in texts), batch_size=1, **given))
        for refuse in (classify.explain, classify.suggest):
            with pytest.raises(ValueError, match="give a row for each"):
                refuse(texts, **given)
        with pytest.raises(ValueError, match="there are 1 inputs"):
            classify(texts[0], **given)
    with pytest.raises(ValueError, match="gives no array of numbers"):
        classify(texts[:1], hints={"own": [["a", "b"]]})
