"""Two dimensions of many."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simstore.errors import InvalidArgumentError, PackageMissingError

__all__ = ["METHODS", "principal_components", "reduced"]

METHODS = ("tsne", "pca")
_MOST_TSNE = 5_000  # points; they take about a minute on two cores
_FEWEST_TSNE = 10  # points; below that there are no neighbourhoods to keep
_EQUAL = 1e-7  # of the largest number: less is rounding
_PRINCIPAL = 50  # components before t-SNE: the rest is mostly noise, and time


def reduced(embeddings: NDArray[np.floating[Any]], method: str | None, seed: int) -> tuple[NDArray[np.float64], str]:
    """Embeddings [n, dim] on a plane: coordinates [n, 2], and by which method.

    Args:
        method: "tsne", "pca", or None: t-SNE if scikit-learn is installed, and the points are not too many or too few.
        seed: Of t-SNE.
    """
    if method not in (None, *METHODS):
        raise InvalidArgumentError(f"method is one of {', '.join(map(repr, METHODS))} or None, not {method!r}")
    is_fit = _FEWEST_TSNE <= len(embeddings) <= _MOST_TSNE
    if method == "pca" or (method is None and not is_fit):
        return principal_components(embeddings, 2), "pca"
    try:
        from sklearn.manifold import TSNE
    except ImportError as err:
        if method is None:
            return principal_components(embeddings, 2), "pca"
        raise PackageMissingError(f"t-SNE needs scikit-learn ({err}): pip install scikit-learn, or take method='pca'") from err
    few = principal_components(embeddings, min(_PRINCIPAL, embeddings.shape[1]))
    if few.std(axis=0).max() <= _EQUAL * np.abs(embeddings).max():  # all equal, as by a collapsed model: t-SNE dies
        return principal_components(embeddings, 2), "pca"
    perplexity = min(30.0, (len(few) - 1) / 3)
    return TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(few).astype(np.float64), "tsne"


def principal_components(vectors: NDArray[np.floating[Any]], n: int) -> NDArray[np.float64]:
    """Vectors [n_vectors, dim] along the n directions in which they vary most, [n_vectors, n]; zeros where there are fewer.

    A direction points to where its largest part is positive, so that the same vectors always give the same picture.
    """
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    left, sizes, directions = np.linalg.svd(centred, full_matrices=False)
    largest = np.abs(directions).argmax(axis=1)
    signs = np.sign(directions[np.arange(len(directions)), largest])
    components = (left * sizes * signs)[:, :n]
    return np.pad(components, ((0, 0), (0, n - components.shape[1])))
