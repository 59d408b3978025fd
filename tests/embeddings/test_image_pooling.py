"""Poolings of images: the largest values, and the quarters of an image."""

import pytest
import torch
from helpers.media_backbones import compose_media, make_images, process, processor_of

from transformers_tart.embeddings.pooling import pool_quarters
from transformers_tart.embeddings.views import split_views
from transformers_tart.inputs.views import View


def embed(name: str, items: list, *views: View) -> tuple[torch.Tensor, ...]:
    model = compose_media(name, views=list(views))
    embedder = model.embedder()
    return split_views(
        embedder.embed_rows([embedder.row(processor_of(name), item, "It") for item in items]), model.config.views
    )


@pytest.mark.parametrize("name", ["vit", "convnext"])
def test__max__images__largest_of_each_map(name: str) -> None:
    model, images = compose_media(name).backbone, make_images(2)
    with torch.no_grad():
        hidden = model(**process(name, images)).last_hidden_state
    expected = hidden.amax(1) if hidden.dim() == 3 else hidden.amax((2, 3))
    torch.testing.assert_close(
        embed(name, images, View(pooling="max", layers=-1))[0][:, 0], expected, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("name", ["vit", "dinov2", "siglip", "swin", "convnext"])
def test__grid__images__means_of_the_quarters(name: str) -> None:
    images = make_images(2)
    views = View(pooling="mean", layers=-1), View("grid", pooling="grid", layers=-1)
    mean, grid = embed(name, images, *views)
    with torch.no_grad():
        hidden = compose_media(name).backbone(**process(name, images)).last_hidden_state
    if hidden.dim() == 3:
        side = int(hidden.shape[1] ** 0.5)
        hidden = hidden[:, -(side**2) :].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    half = -(-hidden.shape[2] // 2)
    quarters = [hidden[:, :, rows, columns] for rows in halves(half) for columns in halves(half)]
    expected = torch.stack([quarter.mean((2, 3)) for quarter in quarters], 1)
    assert mean.shape[1] == 1
    torch.testing.assert_close(grid, expected, rtol=1e-4, atol=1e-4)
    alone = embed(name, images[:1], *views)[1]
    torch.testing.assert_close(grid[:1], alone, rtol=1e-4, atol=1e-4)


def halves(half: int) -> tuple[slice, slice]:
    return slice(None, half), slice(-half, None)


@pytest.mark.parametrize(("length", "image"), [(48, (1, 3, 32, 32)), (49, (1, 3, 32, 64)), (49, (1, 7, 7))])
def test__grid__no_square_of_patches__refused(length: int, image: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match='pooling="mean" or "max"'):
        pool_quarters(torch.ones(1, length, 8), torch.ones(image))
