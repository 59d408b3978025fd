"""`classify.embed`: the embeddings of a task as arrays."""

import numpy as np
import pytest
from helpers.builders import build_tokenizer, compose, make_examples, make_pipeline, make_texts
from helpers.media_backbones import compose_media, make_images, processor_of

from transformers_tart import TartClassificationPipeline


TEXTS = make_texts(5, seed=5)


def test__embed__views__side_by_side_and_as_the_support_set_holds_them() -> None:
    examples = make_examples(12)
    classify = make_pipeline(compose("llama"), examples=examples)
    found = classify.embed([each["text"] for each in examples], view="all")
    expected = classify.model.support.embeddings.float().flatten(1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-3)
    names = [view.name for view in classify.model.config.views]
    parts = [classify.embed(TEXTS, view=name) for name in names]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), classify.embed(TEXTS, view="all"))


def test__embed__one_input_none_and_no_support_set__shapes_of_sentence_transformers() -> None:
    classify = TartClassificationPipeline(
        model=compose("bert", pooling="mean", layers=-1), tokenizer=build_tokenizer()
    )
    found = classify.embed(TEXTS, batch_size=2)
    assert (found.shape, found.dtype) == ((5, 32), np.float32)
    np.testing.assert_allclose(classify.embed(TEXTS[0]), found[0], atol=1e-5)
    assert len(classify.embed([])) == 0


def test__embed__images__one_row_each() -> None:
    classify = TartClassificationPipeline(model=compose_media("vit"), image_processor=processor_of("vit"))
    assert len(classify.embed(make_images(3))) == 3


def test__embed__unknown_view__names_the_views() -> None:
    classify = make_pipeline(compose("llama", views="plain"))
    with pytest.raises(ValueError, match="'mean', 'mean_final'.*\"all\""):
        classify.embed(TEXTS, view="median")

    with pytest.raises(TypeError, match=r"unexpected keyword arguments \['views'\]"):
        classify.embed(TEXTS, views="mean")


def test__embed__prompt_of_examples__clear_error() -> None:
    with pytest.raises(ValueError, match="after a prompt of the examples"):
        make_pipeline(compose("llama", protocol="vanilla")).embed(TEXTS)
