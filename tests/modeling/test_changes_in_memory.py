"""What is changed in a model that has read its examples is seen before it answers, and before it is saved."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.builders import build_backbone, compose, make_examples, make_pipeline, save_backbone, score_all
from transformers import pipeline

from transformers_tart import SupportSet, TartClassificationPipeline, TartForSequenceClassification, View
from transformers_tart.errors import BackboneMismatchError


TEXTS = ["w1 w2 w3", "w9 w8 w7 w6", "w1 " * 20 + "w5"]


def scale_weights(classify: TartClassificationPipeline) -> None:
    for parameter in classify.model.backbone.parameters():
        parameter.data.mul_(1.01)  # around autograd, which counts other changes


def replace_a_weight(classify: TartClassificationPipeline) -> None:
    projection = classify.model.backbone.layers[1].mlp.up_proj
    projection.weight.data = projection.weight.data + 0.01


def narrow_the_window(classify: TartClassificationPipeline) -> None:
    classify.model.backbone.config.sliding_window = 2


def pool_another_way(classify: TartClassificationPipeline) -> None:
    classify.model.config.views = [View(pooling="last")]


def cut_texts(classify: TartClassificationPipeline) -> None:
    classify.model.config.max_length = 2


Change = Callable[[TartClassificationPipeline], None]


@pytest.mark.parametrize("change", [scale_weights, replace_a_weight, narrow_the_window, pool_another_way, cut_texts])
def test__classify__changed_after_the_examples__refused(change: Change) -> None:
    classify = make_pipeline(compose("mistral", views="plain"))
    classify(TEXTS)
    change(classify)
    with pytest.raises(BackboneMismatchError, match="predictions would be wrong"):
        classify(TEXTS)
    classify.set_examples(make_examples())
    assert len(classify(TEXTS)) == len(TEXTS)


@pytest.mark.parametrize("change", [scale_weights, replace_a_weight, narrow_the_window])
def test__save__backbone_changed_before_the_examples__refused_or_included(change: Change, tmp_path: Path) -> None:
    base = save_backbone(tmp_path / "base", "mistral")
    classify = make_pipeline(TartForSequenceClassification.from_backbone(base, views="plain"))
    change(classify)
    classify.set_examples(make_examples())
    with pytest.raises(BackboneMismatchError, match=r"include_backbone=True, or save the backbone first"):
        classify.save_pretrained(tmp_path / "task")
    classify.save_pretrained(tmp_path / "task", include_backbone=True)
    loaded = pipeline("tart-classification", model=str(tmp_path / "task"))
    assert torch.equal(score_all(loaded, TEXTS), score_all(classify, TEXTS))


def test__save__embeddings_resized__included_backbone_loads(tmp_path: Path) -> None:
    classify = make_pipeline(TartForSequenceClassification.from_backbone(save_backbone(tmp_path / "base")))
    classify.model.backbone.resize_token_embeddings(120)
    classify.set_examples(make_examples())
    classify.save_pretrained(tmp_path / "task", include_backbone=True)
    loaded = pipeline("tart-classification", model=str(tmp_path / "task"))
    assert torch.equal(score_all(loaded, TEXTS), score_all(classify, TEXTS))


def test__classify__reasoner_changed__reads_the_examples_again() -> None:
    classify = make_pipeline()
    before = score_all(classify, TEXTS)
    for parameter in classify.model.reasoner.parameters():
        parameter.data.mul_(1.3)
    changed = score_all(classify, TEXTS)
    assert not torch.equal(changed, before)
    classify.set_examples(make_examples())
    assert torch.equal(score_all(classify, TEXTS), changed)


def test__embedding_cache__another_backbone__is_not_that_of_the_former(tmp_path: Path) -> None:
    cached = make_pipeline(embedding_cache=tmp_path)
    before = score_all(cached, TEXTS)
    cached.model.backbone = build_backbone("llama", seed=1)
    cached.set_examples(make_examples())
    plain = make_pipeline(TartForSequenceClassification.from_backbone(build_backbone("llama", seed=1)))
    # a cache embeds copies once, so its batches are others
    torch.testing.assert_close(score_all(cached, TEXTS), score_all(plain, TEXTS), atol=2e-3, rtol=0)
    assert (score_all(cached, TEXTS) - before).abs().max() > 2e-2


@pytest.mark.slow
def test__load__task_without_a_digest__later_changes_are_seen(tmp_path: Path) -> None:
    base = save_backbone(tmp_path / "base", "mistral")
    classify = make_pipeline(TartForSequenceClassification.from_backbone(base, views="plain"))
    classify.save_pretrained(tmp_path / "task")
    path = tmp_path / "task" / "support.safetensors"
    support = SupportSet.load(path)
    SupportSet(support.embeddings, support.labels, support.label_names).save(path)
    for change in (scale_weights, pool_another_way):
        loaded = pipeline("tart-classification", model=str(tmp_path / "task"))
        loaded(TEXTS)
        change(loaded)
        with pytest.raises(BackboneMismatchError):
            loaded(TEXTS)
        with pytest.raises(BackboneMismatchError):
            loaded.save_pretrained(tmp_path / "again", include_backbone=True)


def test__classify__backbone_in_training_mode__goes_back() -> None:
    classify = make_pipeline(TartForSequenceClassification.from_backbone(build_backbone("bert")))
    before = score_all(classify, TEXTS)
    classify.model.backbone.train()
    assert torch.equal(score_all(classify, TEXTS), before)
    assert not any(module.training for module in classify.model.backbone.modules())
