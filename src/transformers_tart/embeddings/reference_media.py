"""The published projection of images and recordings: eight whitened components, twice.

The facts are those of the code published with arXiv 2306.07536 (HazyResearch/TART: `compute_pca` in
`src/tart/embed_utils.py`, the concatenation in `src/eval/eval_speech_image.py` and `Tart.evaluate`): the reasoner was
trained on 16 dimensions, images and recordings get 8 components, and x becomes [x, x].
"""

import torch
from torch import Tensor

from transformers_tart.projection import WhitenedPCA


N_COMPONENTS = 8
COPIES = 2


def published_projection(support: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
    r"""
    What the published reasoner reads of images and recordings.

    All is fitted on the support set alone: the mean, the first 8 principal components, and the whitening, which
    divides each by its standard deviation (with k - 1) without an epsilon. The published code whitens by a rotation to
    the eigenvectors of the components' covariance and back, but principal components are uncorrelated, so that nothing
    is left to rotate. It takes them from scikit-learn 1.0.2, which computes them by random projections above 500
    dimensions, with a new seed each time, and chooses signs by the embeddings; these are exact, with the signs of
    scikit-learn from 1.5 on, as in [`WhitenedPCA`].

    Args:
        support (`Tensor` of shape `(k, hidden)`):
            Embeddings of the support set.
        query (`Tensor` of shape `(n, hidden)`):
            Embeddings of the queries.

    Returns:
        `tuple[Tensor, Tensor]`: (k, 16) and (n, 16) float32, in which columns 8 to 15 repeat columns 0 to 7.

    Raises:
        ValueError: When the published code would divide by zero: with 8 embeddings or fewer, or fewer dimensions.
    """
    if support.dim() != 2 or query.dim() != 2 or support.shape[1] != query.shape[1]:
        raise ValueError(
            f"support is {tuple(support.shape)} and query is {tuple(query.shape)}; they must be (k, hidden) and "
            "(n, hidden)."
        )
    if len(support) <= N_COMPONENTS or support.shape[1] < N_COMPONENTS:
        raise ValueError(
            f"The support set has {len(support)} embeddings of {support.shape[1]} dimensions; the published "
            f"projection needs more than {N_COMPONENTS} of at least {N_COMPONENTS}. Give more examples."
        )
    projection = WhitenedPCA(N_COMPONENTS).fit(support)
    doubled = [torch.cat([projection.transform(x)] * COPIES, dim=-1) for x in (support, query)]
    return doubled[0], doubled[1]


__all__ = ["COPIES", "N_COMPONENTS", "published_projection"]
