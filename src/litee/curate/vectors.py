"""Texts to unit vectors without a model: hashed TF-IDF, reduced by a truncated SVD.

Works in batches, so that memory does not grow with the vocabulary. Any other encoder is a
function with the same shape (`Encode`). Knows nothing of demonstrations. Source: latent semantic
analysis (Deerwester et al. 1990), by scikit-learn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import HashingVectorizer

from litee.progress import progress

Vectors = NDArray[np.float32]
#: Texts → unit vectors, shape (texts, width).
Encode = Callable[[Sequence[str]], Vectors]

_BATCH = 2048
_FEATURES = 2**18
#: The SVD is fitted on a sample of this size.
_SAMPLE = 20_000


def unit(vectors: NDArray[np.floating]) -> Vectors:
    """Rows of length 1; a row of zeros becomes the first axis.

    >>> unit(np.array([[3.0, 4.0], [0.0, 0.0]])).round(2).tolist()
    [[0.6000000238418579, 0.800000011920929], [1.0, 0.0]]
    """
    found = np.asarray(vectors, dtype=np.float32).copy()
    norms = np.linalg.norm(found, axis=1)
    found[norms == 0, 0] = 1.0
    norms[norms == 0] = 1.0
    result: Vectors = found / norms[:, None]
    return result


def tfidf_vectors(texts: Sequence[str], *, dimensions: int, seed: int) -> Vectors:
    """Unit vectors of all texts, shape (texts, at most dimensions).

    A word's weight is (1 + ln count) · (1 + ln((1 + n) / (1 + df))).

    Args:
        texts: one or more.
        dimensions: of the reduced space, fewer when there are few texts.
        seed: of the sample and of the SVD.
    """
    hashing = HashingVectorizer(
        n_features=_FEATURES,
        stop_words="english",
        norm=None,
        alternate_sign=False,
        dtype=np.float32,
    )
    starts = range(0, len(texts), _BATCH)
    frequency = np.zeros(_FEATURES, dtype=np.int64)
    sample = np.zeros(len(texts), dtype=bool)
    rng = np.random.default_rng(seed)
    sample[rng.choice(len(texts), size=min(_SAMPLE, len(texts)), replace=False)] = True
    held = []
    with progress("embedding", 2 * len(texts), "texts") as advance:
        for start in starts:
            counts = hashing.transform(texts[start : start + _BATCH])
            np.add.at(frequency, counts.indices, 1)
            held.append(counts[sample[start : start + _BATCH]])
            advance(counts.shape[0])
        seen = np.flatnonzero(frequency)
        if len(seen) < 2:  # no words to tell texts apart
            return unit(np.zeros((len(texts), 1)))
        idf = (1 + np.log((1 + len(texts)) / (1 + frequency[seen]))).astype(np.float32)
        fitted = _weighted(sparse.vstack(held)[:, seen], idf)
        svd = TruncatedSVD(min(dimensions, *fitted.shape), random_state=seed)
        with np.errstate(invalid="ignore", divide="ignore"):  # texts that are all the same
            svd.fit(fitted)
        found = np.empty((len(texts), svd.n_components), dtype=np.float32)
        for start in starts:
            counts = hashing.transform(texts[start : start + _BATCH])
            found[start : start + _BATCH] = svd.transform(_weighted(counts[:, seen], idf))
            advance(counts.shape[0])
    return unit(found)


def _weighted(counts: sparse.csr_matrix, idf: NDArray[np.float32]) -> sparse.csr_matrix:
    """Rows of length 1 with the weights of the words."""
    weighted = counts.copy()
    weighted.data = (1 + np.log(weighted.data)) * idf[weighted.indices]
    norms = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
    norms[norms == 0] = 1.0
    return sparse.diags((1 / norms).astype(np.float32)) @ weighted
