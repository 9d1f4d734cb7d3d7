"""Ranking by words against a hand-written BM25, fusion, the index on disk, names in dialogues."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from litee.encode.retrieval import Retriever, SearchSettings, best_first, fuse
from litee.encode.retrieval_bm25 import Bm25, words
from litee.encode.retrieval_index import build_index, open_index, read_encoder_name
from litee.encode.retrieval_names import NameFinder, named_query
from litee.errors import ConfigError, InputError
from litee.records import Chunk
from litee.rundir import RunDir

TEXTS = [
    "Dogs are welcome at the inn.",
    "Cats are not welcome.",
    "Parking is free at the inn, parking for all.",
    "Breakfast costs extra.",
]


def chunk(number: int, text: str, title: str = "") -> Chunk:
    return Chunk(f"c{number}", f"d{number}", text, 0, len(text), title=title)


CHUNKS = tuple(chunk(i, text) for i, text in enumerate(TEXTS))


class Letters:
    """An encoder that counts letters; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, texts):
        self.asked += texts
        rows = np.array([[t.lower().count(c) + 0.01 for c in "abcdefghij"] for t in texts])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def bm25_by_hand(query: str, texts: list[str], k1: float = 1.5, b: float = 0.75) -> list[float]:
    """Lucene's form: Σ idf · tf / (tf + k1 (1 − b + b · length / mean length))."""
    split = [words(text) for text in texts]
    mean = sum(map(len, split)) / len(split)
    scores = []
    for own in split:
        total = 0.0
        for word in words(query):
            having = sum(word in other for other in split)
            idf = math.log(1 + (len(texts) - having + 0.5) / (having + 0.5))
            tf = own.count(word)
            total += idf * tf / (tf + k1 * (1 - b + b * len(own) / mean))
        scores.append(total)
    return scores


@pytest.mark.parametrize("query", ["parking at the inn", "are cats welcome welcome", "zebra", ""])
def test_bm25_is_the_formula(query):
    found = Bm25.build(TEXTS).scores(query)
    assert found.tolist() == pytest.approx(bm25_by_hand(query, TEXTS), abs=1e-6)


def test_words_that_nothing_shares_find_nothing():
    model = Bm25.build(TEXTS)
    assert model.best("zebra", 3) == []
    assert [i for i, _ in model.best("cats welcome", 9)] == [1, 0]
    with pytest.raises(ValueError, match="no text has a word"):
        Bm25.build(["…", "!"])


def test_fusion_by_hand():
    found = dict(fuse([[3, 1, 2], [2, 3]], 60))
    assert found[3] == pytest.approx(1 / 61 + 1 / 62)
    assert found[2] == pytest.approx(1 / 63 + 1 / 61)
    assert list(found) == [3, 2, 1]


@given(st.lists(st.permutations(range(6)), min_size=1, max_size=3), st.integers(0, 60))
def test_fusion_of_one_ranking_with_itself_keeps_it(rankings, constant):
    first = rankings[0]
    assert [i for i, _ in fuse([first] * 3, constant)] == list(first)
    everyone = {i for ranking in rankings for i in ranking}
    assert {i for i, _ in fuse(rankings, constant)} == everyone


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, -1.0]), max_size=12), st.integers(1, 15))
def test_the_best_are_the_first_of_a_stable_sort(scores, size):
    found = best_first(np.array(scores, dtype=np.float32), size)
    expected = sorted(range(len(scores)), key=lambda i: -scores[i])[:size]
    assert [i for i, _ in found] == expected


def retriever(reranker=None) -> Retriever:
    encoder = Letters()
    vectors = encoder.encode(TEXTS)
    return Retriever(CHUNKS, Bm25.build(TEXTS), [vectors[:1], vectors[1:]], encoder, reranker)


def test_hybrid_joins_both_rankings():
    whole = retriever()
    rank = {}
    for method in ("bm25", "embeddings"):
        settings = SearchSettings(method=method, k=4)
        rank[method] = [hit.chunk.id for hit in whole.search("free parking", settings)]
    hits = whole.search("free parking", SearchSettings(k=4, rrf_constant=7))
    assert rank["bm25"] == ["c2"]
    assert len(rank["embeddings"]) == 4
    assert hits[0].chunk.id == "c2"
    assert hits[0].score == pytest.approx(1 / 8 + 1 / (8 + rank["embeddings"].index("c2")))
    assert [hit.rank for hit in hits] == [1, 2, 3, 4]
    assert hits[1].bm25_rank is None
    assert hits[1].embedding_rank is not None


def test_a_reranker_has_the_last_word():
    class Shortest:
        def rerank(self, query, texts):
            return [-len(text) for text in texts]

    hits = retriever(Shortest()).search("the inn", SearchSettings(k=2))
    assert [hit.chunk.id for hit in hits] == ["c1", "c3"]
    assert hits[0].score == -len(TEXTS[1])


def test_searching_by_meaning_needs_vectors():
    bare = Retriever(CHUNKS, Bm25.build(TEXTS))
    with pytest.raises(ConfigError, match="no embeddings"):
        bare.search("dogs", SearchSettings())
    assert bare.search("dogs", SearchSettings(method="bm25"))[0].chunk.id == "c0"
    assert bare.knows("c0")
    assert bare.knows("d3")
    assert not bare.knows("x")


def built(folder: Path, chunks=CHUNKS, encoder=None, resume=False) -> Path:
    run = RunDir(folder, {"kind": "index"}, resume=resume)
    build_index(chunks, run, encoder=encoder, encoder_name="letters")
    return folder


def test_an_index_on_disk_gives_the_same_hits(tmp_path):
    folder = built(tmp_path / "i", encoder=Letters())
    assert read_encoder_name(folder) == "letters"
    opened = open_index(folder, encoder=Letters())
    assert opened.chunks == CHUNKS
    for method in ("bm25", "embeddings", "hybrid"):
        settings = SearchSettings(method=method, k=3)
        assert opened.search("inn parking", settings) == retriever().search("inn parking", settings)


def test_an_index_without_vectors_says_so(tmp_path):
    folder = built(tmp_path / "i")
    assert read_encoder_name(folder) == ""
    assert not open_index(folder, encoder=Letters()).vectors


def test_a_killed_build_embeds_only_the_rest(tmp_path, monkeypatch):
    monkeypatch.setattr("litee.encode.retrieval_index._PART", 2)
    whole = built(tmp_path / "whole", encoder=Letters())
    half = tmp_path / "half"
    shutil.copytree(whole, half)
    for name in ("index.json", "vectors/000001.npy", "stages/vectors.json"):
        (half / name).unlink()
    with pytest.raises(InputError, match="not finished"):
        open_index(half)
    encoder = Letters()
    built(half, encoder=encoder, resume=True)
    assert encoder.asked == TEXTS[2:]
    assert (half / "index.json").read_text() == (whole / "index.json").read_text()


@pytest.mark.parametrize("name", ["chunks.jsonl", "bm25/data.csc.index.npy", "vectors/000000.npy"])
def test_damage_is_found(tmp_path, name):
    folder = built(tmp_path / "i", encoder=Letters())
    file = folder / name
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(InputError, match="was changed"):
        open_index(folder, encoder=Letters())
    file.unlink()
    with pytest.raises(InputError, match="is missing"):
        open_index(folder)


@pytest.mark.parametrize(
    "value", ["{", "[]", '{"format": 2, "chunks": 1, "encoder": "", "files": {}}', '{"format": 1}']
)
def test_a_broken_index_file_is_named(tmp_path, value):
    folder = built(tmp_path / "i")
    (folder / "index.json").write_text(value)
    with pytest.raises(InputError, match="index"):
        open_index(folder)


def test_chunks_are_checked_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match="occurs twice"):
        built(tmp_path / "a", [CHUNKS[0], CHUNKS[0]])
    with pytest.raises(InputError, match="no chunk"):
        built(tmp_path / "b", [])
    with pytest.raises(InputError, match="no text has a word"):
        built(tmp_path / "c", [chunk(0, "!!")])


def test_titles_are_searched_too(tmp_path):
    chunks = [chunk(0, "Dogs are welcome.", "Hill Inn"), chunk(1, "Dogs are welcome.", "Sea Inn")]
    found = open_index(built(tmp_path / "i", chunks))
    hits = found.search("sea dogs", SearchSettings(method="bm25"))
    assert [hit.chunk.id for hit in hits] == ["c1", "c0"]
    assert json.loads((tmp_path / "i/chunks.jsonl").read_text().splitlines()[0])["end"] == 17


NAMES = NameFinder(["Ashley Hotel", "Hill Guest House", "Sea Guest House", "The Slug and Lettuce"])


@pytest.mark.parametrize(
    ("messages", "name"),
    [
        (["the ashley?", "They Ashley Hotel is nice.", "has it a bar"], "Ashley Hotel"),
        (["the ashley?", "No, the slug and lettuce.", "ok"], "The Slug and Lettuce"),
        (["a guest house please"], ""),
        (["hill guest house or sea?"], "Hill Guest House"),
        (["hello"], ""),
    ],
)
def test_the_name_said_last_is_found(messages, name):
    assert NAMES.last(messages) == name


def test_a_query_is_led_by_the_name():
    assert named_query(["Ashley Hotel?", "A bar?"], NAMES) == "Ashley Hotel: A bar?"
    assert named_query(["Has ashley hotel a bar?"], NAMES) == "Has ashley hotel a bar?"
    assert named_query(["A bar?"], NAMES) == "A bar?"
