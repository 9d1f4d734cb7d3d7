"""Packed streams: every packing gives the same records, damage says what came out before."""

import bz2
import gzip
import json
import lzma
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litee.collect.gathering import Tally
from litee.collect.zst import BROKEN_JSON, NO_OBJECT, NOT_UTF8, DamagedError, json_lines
from litee.errors import InputError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LONG = {
    zstd.CompressionParameter.enable_long_distance_matching: 1,
    zstd.CompressionParameter.window_log: 27,
}
PACKERS = {
    "plain": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd.compress,
    "zstd-long": lambda data: zstd.compress(data, options=LONG),
}


def rows(count: int) -> bytes:
    return b"".join(
        json.dumps({"n": n, "t": f"text {n * 7919}"}).encode() + b"\n" for n in range(count)
    )


@pytest.mark.parametrize("packing", PACKERS)
def test_every_packing_gives_the_same_records(tmp_path, packing):
    path = tmp_path / "dump"
    path.write_bytes(PACKERS[packing](rows(500)))
    tally = Tally()
    found = list(json_lines(path, tally))
    assert [n for n, _ in found] == list(range(1, 501))
    assert [row["n"] for _, row in found] == list(range(500))
    assert not tally.counts


def test_two_frames_are_read_through(tmp_path):
    path = tmp_path / "dump.zst"
    path.write_bytes(zstd.compress(rows(3)) + zstd.compress(rows(2)))
    assert [row["n"] for _, row in json_lines(path, Tally())] == [0, 1, 2, 0, 1]


@pytest.mark.parametrize("packing", ["gzip", "bzip2", "xz", "zstd"])
def test_a_truncated_file_gives_its_head_then_the_error(tmp_path, packing):
    data = PACKERS[packing](rows(60_000))
    path = tmp_path / "dump"
    path.write_bytes(data[: len(data) * 3 // 4])
    found = []
    with pytest.raises(DamagedError, match="unpacked bytes") as caught:
        for _, row in json_lines(path, Tally()):
            found.append(row["n"])
    assert 1000 < len(found) < 60_000
    assert found == list(range(len(found)))
    assert "--salvage" in caught.value.fix
    assert " 0 unpacked" not in caught.value.problem


def test_broken_lines_are_counted_and_left_out(tmp_path):
    path = tmp_path / "dump.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\n[1]\n{"a": \n{"a": "\xff"}\n{"a": 2}')
    tally = Tally()
    assert [(n, row["a"]) for n, row in json_lines(path, tally)] == [(1, 1), (6, 2)]
    assert tally.counts == {NO_OBJECT: 1, BROKEN_JSON: 1, NOT_UTF8: 1}
    assert tally.examples[BROKEN_JSON] == (f"{path}, row 4",)


def test_utf_16_is_named(tmp_path):
    path = tmp_path / "dump.jsonl"
    path.write_bytes('{"a": 1}\n'.encode("utf-16"))
    with pytest.raises(InputError, match="UTF-16") as caught:
        list(json_lines(path, Tally()))
    assert "iconv -f UTF-16 -t UTF-8 dump.jsonl" in caught.value.fix


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "none.zst"):
        with pytest.raises(InputError):
            list(json_lines(path, Tally()))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("scratch")


PACKED = {name: pack(rows(40)) for name, pack in PACKERS.items()}


@given(st.data())
def test_damaged_bytes_never_end_in_another_error(scratch, data):
    """Bytes changed anywhere: records, counts, or an error for the user."""
    name = data.draw(st.sampled_from(sorted(PACKED)))
    content = bytearray(PACKED[name])
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    path = scratch / "damaged"
    path.write_bytes(bytes(content[:cut]))
    tally = Tally()
    found = 0
    try:
        for _, row in json_lines(path, tally):
            assert isinstance(row, dict)
            found += 1
    except InputError as error:
        assert error.place == str(path)
        assert error.fix
    assert found <= 40
