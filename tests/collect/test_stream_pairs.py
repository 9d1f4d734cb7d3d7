"""Pairs one by one: the same pairs as at once, without keeping them."""

from __future__ import annotations

import json
import tracemalloc

import pytest

from litee.collect.votes import load_pairs, stream_pairs
from litee.errors import InputError


def written(folder, rows):
    file = folder / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def row(number, **given):
    text = {"prompt": f"p{number}", "response_a": "a" * 50, "response_b": "b" * 50}
    return {"id": str(number)} | text | given


def test_the_same_pairs_as_at_once(tmp_path):
    file = written(tmp_path, [row(k) for k in (1, 2, 2, 3, 1)])
    assert tuple(stream_pairs(file)) == load_pairs(file)
    assert [p.id for p in stream_pairs(file)] == ["1", "2", "3"]


def test_ids_far_apart_are_forgotten(tmp_path):
    file = written(tmp_path, [row(k) for k in (1, 2, 3, 4, 5, 6, 7, 1, 7)])
    assert [p.id for p in stream_pairs(file, window=3)] == [*"1234567", "1"]
    assert [p.id for p in stream_pairs(file, window=None)] == [*"1234567"]


def test_an_unusable_row_is_an_error_when_it_is_reached(tmp_path):
    file = written(tmp_path, [row(1), row(2, response_a=["one", "two"]), row(3)])
    stream = stream_pairs(file)
    assert next(stream).id == "1"
    with pytest.raises(InputError, match="row 2"):
        list(stream)


def test_memory_does_not_grow_with_the_rows(tmp_path):
    peaks = []
    for count in (1000, 8000):
        file = written(tmp_path, (row(k) for k in range(count)))
        assert sum(1 for _ in stream_pairs(file, window=100)) == count
        tracemalloc.start()
        for _ in stream_pairs(file, window=100):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
