"""Near-duplicate texts: MinHash signatures, locality-sensitive hashing, true Jaccard.

Texts are compared as sets of their character 5-grams after normalisation. Work grows with
n log n, also when thousands of texts share one template. Knows nothing of prompts and votes.

Sources: Broder (1997), "On the resemblance and containment of documents" (MinHash); Leskovec,
Rajaraman, Ullman, "Mining of Massive Datasets", section 3.4 (banding). Comparing only
neighbours in the order of three bands is derived here.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from datasketch import MinHash

from litee.progress import progress

_SHINGLE = 5
_PERMUTATIONS = 128
_CHUNK = 8192
_NEIGHBOURS = 8
#: Allowed chance that one pair exactly at the threshold shares no band.
_MISS = 1e-3
#: Candidates whose estimate lies further below the threshold are not verified: about three
#: standard deviations, which are sqrt(J (1 − J) / 128) = 0.035 at J = 0.8.
_MARGIN = 0.12
#: Failed verifications after which a text's estimates must reach the threshold itself.
_PATIENCE = 8


def normalise(text: str) -> str:
    r"""The text in one form: NFKC, case folded, white space collapsed.

    >>> normalise("  What  IS\tthis? ")
    'what is this?'
    """
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def shingles(text: str) -> frozenset[str]:
    """All runs of five characters; a shorter text is one shingle.

    >>> sorted(shingles("abcdef"))
    ['abcde', 'bcdef']
    """
    if len(text) <= _SHINGLE:
        return frozenset((text,))
    return frozenset(text[i : i + _SHINGLE] for i in range(len(text) - _SHINGLE + 1))


def jaccard(a: str, b: str) -> float:
    """Shared shingles over all shingles of both texts, in [0, 1].

    >>> jaccard("abcdef", "abcdeg")
    0.3333333333333333
    """
    first, second = shingles(a), shingles(b)
    both = len(first & second)
    return both / (len(first) + len(second) - both)


class Links:
    """Union-find over 0 … size − 1 with path halving; the smaller root wins.

    >>> links = Links(3)
    >>> links.join(0, 2), links.join(2, 0)
    (True, False)
    >>> [links.root(k) for k in range(3)]
    [0, 1, 0]
    """

    def __init__(self, size: int) -> None:
        self._parent = list(range(size))

    def root(self, item: int) -> int:
        """The smallest member of the item's component."""
        parent = self._parent
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    def join(self, i: int, j: int) -> bool:
        """Put two items into one component; False when they were in one already."""
        low, high = sorted((self.root(i), self.root(j)))
        self._parent[high] = low
        return low != high


def near_links(
    texts: Sequence[str], *, threshold: float, seed: int = 0
) -> Iterator[tuple[int, int]]:
    """Pairs (i, j) of texts with a true Jaccard similarity of at least `threshold`.

    Enough pairs to connect every group of near-duplicates, none that closes a circle: texts that
    are connected already are not compared again. The same set of texts gives the same pairs in
    every order of the texts.

    A pair at the threshold becomes a candidate with a chance of 99.9 % or more; every candidate
    is verified. In a crowd of texts just below the threshold (one long template, for example)
    each text is verified a few dozen times at most, the most similar first.

    Args:
        texts: normalised texts, all different.
        threshold: in (0, 1].
        seed: of the hash functions.
    """
    if len(texts) < 2:
        return
    order = sorted(range(len(texts)), key=texts.__getitem__)
    ordered = [texts[k] for k in order]
    signatures = _signatures(ordered, seed)
    rows = _rows_per_band(threshold)
    keys = _band_keys(signatures, rows, _PERMUTATIONS // rows)
    links = Links(len(texts))
    seen: set[int] = set()
    failed = np.zeros(len(texts), dtype=np.int64)
    for band in range(keys.shape[1]):
        for candidates in _neighbours(keys, band):
            for i, j in _promising(signatures, failed, candidates, threshold):
                if i * len(texts) + j in seen or links.root(i) == links.root(j):
                    continue
                seen.add(i * len(texts) + j)
                if jaccard(ordered[i], ordered[j]) >= threshold:
                    links.join(i, j)
                    yield order[i], order[j]
                else:
                    failed[[i, j]] += 1


def _promising(
    signatures: npt.NDArray[np.uint32],
    failed: npt.NDArray[np.int64],
    pairs: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
    threshold: float,
) -> list[tuple[int, int]]:
    """The candidates worth verifying, the most similar by estimate first.

    The estimate must reach the threshold less a margin of three standard deviations; each failed
    verification of either text raises that bar by 1/8 of the margin.
    """
    i, j = pairs
    estimate = np.concatenate(
        [
            np.mean(signatures[i[k : k + _CHUNK]] == signatures[j[k : k + _CHUNK]], axis=1)
            for k in range(0, len(i), _CHUNK)
        ]
    )
    tries = np.maximum(failed[i], failed[j])
    keep = np.flatnonzero(estimate >= threshold - _MARGIN * (1 - tries / _PATIENCE))
    keep = keep[np.argsort(-estimate[keep], kind="stable")]
    return list(zip(i[keep].tolist(), j[keep].tolist(), strict=True))


def _rows_per_band(threshold: float) -> int:
    """The longest band with which a pair at the threshold is missed with chance ≤ `_MISS`.

    The chance is (1 − threshold^rows)^bands.
    """
    rows = 1
    while rows < 16 and (1 - threshold ** (rows + 1)) ** (_PERMUTATIONS // (rows + 1)) <= _MISS:
        rows += 1
    return rows


def _shingle_hashes(text: str) -> npt.NDArray[np.uint32]:
    """Distinct 32-bit hashes of the text's shingles."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    codes = codes.astype(np.uint64)
    if len(codes) < _SHINGLE:
        codes = np.pad(codes, (0, _SHINGLE - len(codes)))
    count = len(codes) - _SHINGLE + 1
    hashed = np.zeros(count, dtype=np.uint64)
    for k in range(_SHINGLE):
        hashed = (hashed ^ codes[k : k + count]) * np.uint64(0x9E3779B97F4A7C15)
        hashed ^= hashed >> np.uint64(29)
    return np.unique((hashed >> np.uint64(32)).astype(np.uint32))


def _signatures(texts: Sequence[str], seed: int) -> npt.NDArray[np.uint32]:
    """MinHash signatures, shape (texts, 128)."""
    empty = MinHash(num_perm=_PERMUTATIONS, seed=seed, hashfunc=int)
    table = np.empty((len(texts), _PERMUTATIONS), dtype=np.uint32)
    with progress("comparing prompts", len(texts), "prompts") as advance:
        for row, text in enumerate(texts):
            sketch = empty.copy()
            hashed = _shingle_hashes(text)
            for start in range(0, len(hashed), _CHUNK):
                sketch.update_batch(hashed[start : start + _CHUNK].tolist())
            table[row] = sketch.hashvalues
            advance(1)
    return table


def _band_keys(signatures: npt.NDArray[np.uint32], rows: int, bands: int) -> npt.NDArray[np.uint64]:
    """One 64-bit key per text and band, shape (texts, bands)."""
    keys = np.zeros((len(signatures), bands), dtype=np.uint64)
    for row in range(rows):
        column = signatures[:, row : bands * rows : rows].astype(np.uint64)
        keys = (keys ^ column) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(31)
    return keys


def _neighbours(
    keys: npt.NDArray[np.uint64], band: int
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Pairs with the same key in a band that lie close together in the order of three bands.

    Texts that agree in a band are sorted by two further bands, so that in a crowded bucket
    near-duplicates still come to lie side by side.
    """
    bands = keys.shape[1]
    order = np.lexsort([keys[:, (band + k) % bands] for k in (2, 1, 0)])
    for lag in range(1, min(_NEIGHBOURS, len(order) - 1) + 1):
        i, j = order[:-lag], order[lag:]
        same = keys[i, band] == keys[j, band]
        if not same.any():
            return
        i, j = i[same], j[same]
        yield np.minimum(i, j), np.maximum(i, j)
