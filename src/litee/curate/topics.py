"""Topics of demonstrations: clusters of their vectors, named by their words.

Knows nothing of choosing. Sources: mini-batch k-means (Sculley 2010) by scikit-learn; names by
class-based TF-IDF (Grootendorst 2022, "BERTopic", equation 2).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import CountVectorizer

from litee.curate.vectors import Vectors

_SAMPLE = 5000
_WORDS = 3
_MOST = 50


def topic_count(size: int, wanted: int) -> int:
    """Number of clusters: as wanted, or √(size / 2) up to 50; never more than texts.

    >>> topic_count(175, 0), topic_count(100_000, 0), topic_count(3, 8)
    (9, 50, 3)
    """
    auto = max(1, min(_MOST, int((size / 2) ** 0.5)))
    return min(size, wanted or auto)


def cluster(vectors: Vectors, count: int, seed: int) -> NDArray[np.int64]:
    """The cluster of each vector, 0 … count − 1 (some may stay empty)."""
    means = MiniBatchKMeans(
        count, random_state=seed, n_init=3, batch_size=max(1024, 4 * count), max_iter=50
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than clusters
        labels: NDArray[np.int64] = means.fit_predict(vectors).astype(np.int64)
    return labels


def name_clusters(
    texts: Sequence[str], labels: NDArray[np.int64], count: int, seed: int
) -> list[str]:
    """A name per cluster: its number and the three words that set it apart.

    Words of a sample of 5,000 texts are counted; a cluster without words has its number alone.
    """
    rng = np.random.default_rng(seed)
    size = min(_SAMPLE, len(texts))
    rows = np.sort(rng.choice(len(texts), size=size, replace=False))
    counting = CountVectorizer(
        stop_words="english", max_features=20_000, token_pattern=r"\b[^\W\d_]{3,}\b"
    )
    names = [f"{k:02d}" for k in range(count)]
    try:
        counts = counting.fit_transform([texts[row] for row in rows])
    except ValueError:  # no words at all
        return names
    words = counting.get_feature_names_out()
    totals = np.stack([np.asarray(counts[labels[rows] == k].sum(axis=0))[0] for k in range(count)])
    per_topic = totals.sum(axis=1, keepdims=True)
    average = per_topic.mean()
    weights = totals / np.maximum(per_topic, 1) * np.log(1 + average / totals.sum(axis=0))
    for k, row in enumerate(weights):
        best = [words[j] for j in np.argsort(-row, kind="stable")[:_WORDS] if row[j] > 0]
        names[k] = " ".join([names[k], *best])
    return names
