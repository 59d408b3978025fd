"""WhitenedPCA, ClippedSpectrum and LayerScaling."""

import pytest
import torch
from helpers.builders import SHARED
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from sklearn.decomposition import PCA
from torch import Tensor

from transformers_tart.projection import ClippedSpectrum, Identity, LayerScaling, WhitenedPCA, fit_projection


SHAPES = st.tuples(st.integers(2, 40), st.integers(1, 30))


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("protocol", ["stream", "vanilla", "loo"])
@pytest.mark.parametrize("part", ["support", "query"])
def test__whitened_pca__golden_protocols__reproduced_signs_included(protocol: str, part: str) -> None:
    path = SHARED / "golden" / "reference_protocols.safetensors"
    if not path.exists():
        pytest.skip("needs the golden outputs, which are absent here")
    golden = load_file(path)
    pca = WhitenedPCA(16).fit(golden[f"{protocol}.support"])
    found = pca.transform(golden[f"{protocol}.{part}"])
    torch.testing.assert_close(found, golden[f"{protocol}.{part}_whitened"], atol=1e-3, rtol=0)


@given(shape=SHAPES, components=st.integers(1, 20))
def test__whitened_pca__any_shape__unit_variance_uncorrelated_or_zero(shape: tuple[int, int], components: int) -> None:
    x = draw(*shape)
    z = WhitenedPCA(components).fit(x).transform(x)
    rank = min(components, shape[0] - 1, shape[1])
    assert z.shape == (shape[0], components)
    covariance = z.T @ z / (shape[0] - 1)
    expected = torch.diag((torch.arange(components) < rank).float())
    torch.testing.assert_close(covariance, expected, atol=2e-3, rtol=0)


def test__whitened_pca__enough_examples__equals_scikit_learn() -> None:
    x, query = draw(50, 20) * torch.logspace(0, -2, 20), draw(7, 20, seed=1)
    reference = PCA(16, whiten=True, svd_solver="full").fit(x.numpy())
    expected = torch.tensor(reference.transform(query.numpy()))
    torch.testing.assert_close(WhitenedPCA(16).fit(x).transform(query), expected, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e30])
def test__whitened_pca__any_scale__same_result(scale: float) -> None:
    x, query = draw(20, 8), draw(5, 8, seed=1)
    expected = WhitenedPCA(4).fit(x).transform(query)
    torch.testing.assert_close(WhitenedPCA(4).fit(x * scale).transform(query * scale), expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("rank", [0, 1, 3])
def test__whitened_pca__low_rank__remaining_components_are_zero(rank: int) -> None:
    x = draw(12, rank) @ draw(rank, 9, seed=1) + 5.0
    z = WhitenedPCA(6).fit(x).transform(draw(4, 9, seed=2))
    assert torch.isfinite(z).all()
    assert (z[:, rank:] == 0).all()
    assert (z[:, :rank] != 0).all()


def test__whitened_pca__batch__each_set_alone() -> None:
    x, query = draw(3, 10, 6), draw(3, 4, 6, seed=1)
    found = WhitenedPCA(4).fit(x).transform(query)
    for i in range(3):
        torch.testing.assert_close(found[i], WhitenedPCA(4).fit(x[i]).transform(query[i]), atol=1e-4, rtol=1e-4)


@given(order=st.permutations(range(10)))
def test__whitened_pca__order_of_the_support__does_not_matter(order: list[int]) -> None:
    x, query = draw(10, 6), draw(4, 6, seed=1)
    expected = WhitenedPCA(4).fit(x).transform(query)
    torch.testing.assert_close(WhitenedPCA(4).fit(x[order]).transform(query), expected, atol=1e-3, rtol=1e-3)


def test__whitened_pca__moved__same_and_the_first_is_left() -> None:
    pca = WhitenedPCA(4).fit(draw(10, 6))
    moved = pca.to("cpu")
    assert moved is not pca
    assert torch.equal(moved.transform(draw(3, 6)), pca.transform(draw(3, 6)))
    assert WhitenedPCA(4).to("cpu").components is None


def test__whitened_pca__misuse__clear_error() -> None:
    with pytest.raises(ValueError, match=r"not fitted; call fit\(support_embeddings\) first"):
        WhitenedPCA(4).transform(draw(3, 6))
    with pytest.raises(ValueError, match="n_components is 0; it must be at least 1"):
        WhitenedPCA(0)
    with pytest.raises(ValueError, match="at least two embeddings"):
        WhitenedPCA(4).fit(draw(1, 6))


def test__layer_scaling__support__mean_squared_norm_of_one_and_centered() -> None:
    x = draw(9, 3, 5) * torch.tensor([1e-3, 1.0, 1e3])[:, None] + 100.0
    z = LayerScaling.fit(x).transform(x).unflatten(1, (3, 5))
    torch.testing.assert_close(z.square().sum(-1).mean(0)[1:], torch.ones(2), atol=1e-3, rtol=0)
    torch.testing.assert_close(z.mean(0), torch.zeros(3, 5), atol=1e-2, rtol=0)


def test__layer_scaling__gram_matrix__sum_of_those_of_the_layers() -> None:
    x = draw(9, 3, 5)
    alone = [LayerScaling.fit(x[:, i : i + 1]).transform(x[:, i : i + 1]) for i in range(3)]
    z = LayerScaling.fit(x).transform(x)
    torch.testing.assert_close(z @ z.T, sum(a @ a.T for a in alone), atol=1e-4, rtol=1e-4)


def test__layer_scaling__constant_layer__counts_for_nothing() -> None:
    x = draw(9, 2, 5)
    x[:, 0] = 3.7
    query = draw(4, 2, 5, seed=1)
    z = LayerScaling.fit(x).transform(query)
    assert (z[:, :5] == 0).all()
    torch.testing.assert_close(z[:, 5:], LayerScaling.fit(x[:, 1:]).transform(query[:, 1:]))


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test__layer_scaling__any_scale__same_result(scale: float) -> None:
    x, query = draw(9, 2, 5), draw(4, 2, 5, seed=1)
    expected = LayerScaling.fit(x).transform(query)
    torch.testing.assert_close(LayerScaling.fit(x * scale).transform(query * scale), expected, atol=1e-4, rtol=1e-4)


def draw_dominated(share: float, k: int = 60, dim: int = 40, seed: int = 0) -> torch.Tensor:
    """Rows whose first direction has about this share of the variance, and the others have it evenly."""
    x = torch.randn(1, k, dim, generator=torch.Generator().manual_seed(seed))
    x[..., 0] *= (share / (1 - share) * (dim - 1)) ** 0.5
    return x + 5.0


def spectrum(x: torch.Tensor) -> torch.Tensor:
    """Variances of the principal components of (1, k, dim), as shares, from the largest."""
    squares = torch.linalg.svdvals((x[0] - x[0].mean(0)).double()).square()
    return squares / squares.sum()


def participation(x: torch.Tensor) -> float:
    return 1 / spectrum(x).square().sum().item()


@pytest.mark.parametrize("share", [0.5, 0.99, 0.9999])
def test__clipped_spectrum__direction_that_drowns_the_others__cut_until_they_count(share: float) -> None:
    x = draw_dominated(share)
    found = ClippedSpectrum(12.0).fit(x).transform(x)
    assert participation(x) < 6
    assert participation(found) == pytest.approx(12.0, abs=0.01)
    # those below the level keep their proportions
    torch.testing.assert_close(
        spectrum(found)[5:20] / spectrum(found)[20], spectrum(x)[5:20] / spectrum(x)[20], rtol=1e-2, atol=1e-2
    )


def test__clipped_spectrum__several_directions_too_large__all_at_one_level() -> None:
    x = draw_dominated(0.5)
    x[..., 1:4] = 20 * (x[..., 1:4] - 5) * torch.tensor([1.0, 2.0, 3.0])
    found = spectrum(ClippedSpectrum(15.0).fit(x).transform(x))
    torch.testing.assert_close(found[:4], found[:1].expand(4), rtol=1e-3, atol=1e-5)


def test__clipped_spectrum__few_directions__half_of_them_are_enough() -> None:
    x = draw_dominated(0.9, k=400, dim=10)
    assert participation(ClippedSpectrum().fit(x).transform(x)) == pytest.approx(5.0, abs=0.01)


def test__clipped_spectrum__even_directions__only_center_and_scale() -> None:
    x = draw_dominated(0.01, k=400, dim=60)
    found = ClippedSpectrum().fit(x).transform(x)
    centered = x - x.mean(1, keepdim=True)
    torch.testing.assert_close(found, centered / centered.square().sum(-1).mean().sqrt(), rtol=1e-4, atol=1e-5)


@given(seed=st.integers(0, 99), k=st.integers(2, 40), share=st.floats(0.01, 0.999))
def test__clipped_spectrum__any_support__mean_squared_norm_of_one(seed: int, k: int, share: float) -> None:
    x = draw_dominated(share, k=k, seed=seed)
    found = ClippedSpectrum().fit(x).transform(x)
    assert found.mean(1).abs().max() < 1e-3
    assert found.square().sum(-1).mean() == pytest.approx(1.0, abs=1e-3)


def test__clipped_spectrum__rotated_shifted_and_scaled__inner_products_stay() -> None:
    x, queries = draw_dominated(0.9), draw_dominated(0.9, k=7, seed=1)
    rotation = torch.linalg.qr(torch.randn(40, 40, generator=torch.Generator().manual_seed(2)))[0]
    plain, turned = ClippedSpectrum().fit(x), ClippedSpectrum().fit(3 * x @ rotation + 1)
    expected = plain.transform(queries) @ plain.transform(x).transpose(1, 2)
    found = turned.transform(3 * queries @ rotation + 1) @ turned.transform(3 * x @ rotation + 1).transpose(1, 2)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("x", [torch.ones(1, 5, 3), torch.zeros(1, 1, 4)], ids=["equal", "one"])
def test__clipped_spectrum__no_variance__zeros(x: torch.Tensor) -> None:
    found = ClippedSpectrum().fit(x)
    assert torch.equal(found.transform(x), torch.zeros_like(x))
    assert torch.isfinite(found.transform(x + 1)).all()


def test__clipped_spectrum__each_of_a_batch__on_its_own() -> None:
    x = torch.cat([draw_dominated(0.9), draw_dominated(0.01, seed=1)])
    together = ClippedSpectrum().fit(x).to("cpu").transform(x)
    alone = torch.cat([ClippedSpectrum().fit(each[None]).transform(each[None]) for each in x])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test__clipped_spectrum__not_fitted__error() -> None:
    with pytest.raises(ValueError, match="not fitted"):
        ClippedSpectrum().transform(torch.ones(1, 2, 3))


def test__fit_projection__names__give_their_projection() -> None:
    x = draw(1, 10, 6)
    assert isinstance(fit_projection("none", 4, x), Identity)
    assert Identity().to("cpu").transform(x) is x
    assert fit_projection("whitened_pca", 4, x).transform(x).shape == (1, 10, 4)
