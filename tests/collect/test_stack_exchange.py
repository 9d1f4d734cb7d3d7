"""Stack Exchange dumps: which question is taken, what each filter removes, what damage does."""

import re
from html import escape
from pathlib import Path

import py7zr
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litee.collect.demonstration_settings import DemonstrationSettings
from litee.collect.lima_filters import FIRST_PERSON, LONG, LOW_SCORE, NOT_ALONE, REFERENCE, SHORT
from litee.collect.reading import Reading
from litee.collect.sampling import sample_sites
from litee.collect.stack_exchange import (
    BROKEN_ROW,
    CROWDED,
    CUT_ROW,
    LICENSE,
    NO_END,
    NOT_BEST,
    read_stack_exchange,
)
from litee.errors import InputError
from litee.records import Demonstration

GOOD = "<p>" + "Bread rises since yeast makes gas. " * 40 + "</p>"


def post(number: int, **attributes: object) -> str:
    cells = {"Id": number, **attributes}
    return "  <row " + " ".join(f'{k}="{escape(str(v))}"' for k, v in cells.items()) + " />\n"


def question(number: int, title: str = "Why does bread rise at all?", score: int = 5) -> str:
    body = f"<p>Tell why, number {number}.</p>"
    return post(number, PostTypeId=1, Score=score, Title=title, Body=body)


def answer(number: int, parent: int, body: str = GOOD, score: int = 12, **more: object) -> str:
    return post(number, PostTypeId=2, ParentId=parent, Score=score, Body=body, **more)


def dump(*posts: str) -> bytes:
    head = '\ufeff<?xml version="1.0" encoding="utf-8"?>\n<posts>\n'
    return (head + "".join(posts) + "</posts>").encode()


def read(*paths: Path, **values: object) -> tuple[list[Demonstration], Reading]:
    reading = Reading(DemonstrationSettings(**values))
    return list(read_stack_exchange(paths, reading)), reading


@pytest.fixture
def site(tmp_path):
    def write(*posts: str, name: str = "cooking.stackexchange.com.xml") -> Path:
        path = tmp_path / name
        path.write_bytes(dump(*posts))
        return path

    return write


def test_the_best_answer_becomes_the_demonstration(site):
    path = site(question(1), answer(2, 1, score=11), answer(3, 1, GOOD + "<p>Best.</p>", 30))
    (found,), reading = read(path, prompt="title")
    assert found.id == "cooking/1"
    assert found.prompt == "Why does bread rise at all?"
    assert found.answer.endswith("Best.")
    assert (found.source, found.license, found.score) == ("stackexchange/cooking", LICENSE, 5.0)
    assert reading.removed.counts == {NOT_BEST: 1}
    assert reading.read == 2


@pytest.mark.parametrize(
    ("body", "score", "reason"),
    [
        (GOOD, 9, LOW_SCORE),
        ("<p>Yeast.</p>", 20, SHORT),
        (GOOD * 4, 20, LONG),
        (GOOD + "<p>I like it.</p>", 20, FIRST_PERSON),
        (GOOD + "<p>As mentioned, wait.</p>", 20, REFERENCE),
        (GOOD + "<p>@Ann is right.</p>", 20, REFERENCE),
    ],
)
def test_each_filter_removes_and_counts(site, body, score, reason):
    found, reading = read(site(question(1), answer(2, 1, body, score)))
    assert found == []
    assert reading.removed.counts == {reason: 1}


def test_length_is_that_of_the_text_without_html(site):
    """1,200 characters count, 1,199 do not, whatever the markup adds."""
    for length, kept in ((1200, 1), (1199, 0)):
        body = "<p>" + "x" * (length - 1) + "<b>y</b></p>" + "<img src='a'>" * 9
        assert len(read(site(question(1), answer(2, 1, body)))[0]) == kept


def test_a_score_of_ten_is_enough(site):
    assert len(read(site(question(1), answer(2, 1, score=10)))[0]) == 1


def test_first_person_and_references_can_be_kept(site):
    path = site(question(1), answer(2, 1, GOOD + "<p>I say, as mentioned.</p>"))
    assert len(read(path, first_person=True, references=True)[0]) == 1


def test_a_title_must_stand_alone(site):
    path = site(question(1, "Help with this?"), answer(2, 1))
    found, reading = read(path)
    assert found == []
    assert reading.removed.counts == {NOT_ALONE: 1}


def test_title_or_body_is_the_prompt(site):
    posts = [p for k in range(1, 80, 2) for p in (question(k), answer(k + 1, k))]
    path = site(*posts)
    assert {d.prompt for d in read(path, prompt="title")[0]} == {"Why does bread rise at all?"}
    assert all(d.prompt.startswith("Tell why") for d in read(path, prompt="body")[0])
    mixed = sum(d.prompt.startswith("Tell") for d in read(path)[0])
    assert 10 < mixed < 30
    assert read(path)[0] == read(path)[0]


def test_only_the_best_scored_questions_of_a_site_are_held(site):
    posts = [p for k in range(1, 20, 2) for p in (question(k, score=k), answer(k + 1, k))]
    found, reading = read(site(*posts), per_site=3)
    assert sorted(d.score for d in found) == [15, 17, 19]
    assert reading.removed.counts == {CROWDED: 7}


def test_sites_are_sampled_by_the_cube_root_of_their_size():
    """Weights of 1,000 and 8 items at temperature 3 are 10 and 2, so 1/6 of the draws."""
    import numpy as np

    pools = {"big": list(range(100_000)), "small": [-1] * 800}
    scale = 125 ** (1 / 3)  # 100,000 / 800 = 125, whose cube root is 5
    drawn = list(sample_sites(pools, 3000, 3.0, np.random.default_rng(1)))
    assert scale == pytest.approx(5)
    assert sum(x == -1 for x in drawn) == pytest.approx(500, abs=60)
    assert [x for x in drawn if x >= 0] == list(range(sum(x >= 0 for x in drawn)))


def test_n_is_shared_between_stem_and_other_sites(site):
    def posts(count):
        return [p for k in range(1, 2 * count, 2) for p in (question(k), answer(k + 1, k))]

    paths = [
        site(*posts(9), name="cooking.stackexchange.com.xml"),
        site(*posts(9), name="physics.stackexchange.com.xml"),
    ]
    found, _ = read(*paths, n=8, stem_share=0.25)
    sources = [d.source for d in found]
    assert sources.count("stackexchange/physics") == 2
    assert sources.count("stackexchange/cooking") == 6


def test_a_broken_row_costs_only_itself(site):
    path = site(question(1), answer(2, 1), '<row Id="x" Body="', question(3), answer(4, 3))
    found, reading = read(path)
    assert {d.id for d in found} == {"cooking/1", "cooking/3"}
    assert reading.lost.counts == {BROKEN_ROW: 1}


def test_a_row_across_blocks_is_whole(site, monkeypatch):
    monkeypatch.setattr("litee.collect.stack_exchange._BLOCK", 7)
    assert len(read(site(question(1), answer(2, 1)))[0]) == 1


def test_a_cut_dump_says_what_is_missing(tmp_path):
    path = tmp_path / "cooking.xml"
    path.write_bytes(dump(question(1), answer(2, 1), question(3), answer(4, 3))[:-60])
    found, reading = read(path)
    assert [d.id for d in found] == ["cooking/1"]
    assert reading.lost.counts == {CUT_ROW: 1, NO_END: 1}


def test_a_file_without_posts_is_refused(tmp_path):
    for content in (b"", b"not xml at all", b"<posts></posts>", b"<row Id=>" * 3):
        path = tmp_path / "site.xml"
        path.write_bytes(content)
        with pytest.raises(InputError, match="holds no readable posts"):
            read(path)


def packed(path: Path, name: str, content: bytes) -> Path:
    source = path.with_suffix(".raw")
    source.write_bytes(content)
    with py7zr.SevenZipFile(path, "w") as archive:
        archive.write(source, name)
    return path


def test_a_7z_dump_reads_like_its_posts(tmp_path):
    content = dump(question(1), answer(2, 1))
    path = packed(tmp_path / "cooking.stackexchange.com.7z", "Posts.xml", content)
    (found,), _ = read(path)
    assert found.id == "cooking/1"


def test_a_7z_without_posts_and_two_dumps_of_one_site_are_refused(tmp_path, site):
    path = packed(tmp_path / "a.7z", "Users.xml", b"<users/>")
    with pytest.raises(InputError, match=r"holds no Posts.xml \(found: Users.xml\)"):
        read(path)
    one = site(question(1), answer(2, 1))
    with pytest.raises(InputError, match="second dump"):
        read(one, one)


@pytest.fixture(scope="module")
def seven_zip(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("packed") / "cooking.7z"
    return packed(path, "Posts.xml", dump(question(1), answer(2, 1))).read_bytes()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_7z_is_an_error_with_a_fix(tmp_path_factory, seven_zip, data):
    folder = tmp_path_factory.mktemp("broken")
    path = folder / "cooking.7z"
    content = bytearray(seven_zip)
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(6, len(content) - 1))]
    else:
        for place in data.draw(st.lists(st.integers(6, len(content) - 1), min_size=1, max_size=3)):
            content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))
    try:
        read(path)
    except InputError as error:
        assert error.fix
        assert str(path) in error.place


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_posts_never_end_in_another_error(tmp_path_factory, data):
    content = bytearray(dump(question(1), answer(2, 1), question(3), answer(4, 3)))
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=8)):
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.xml"
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    try:
        found, _ = read(path)
    except InputError as error:
        assert re.search(r"\(\d+ broken\)|posts", error.problem)
    else:
        assert len(found) <= 2
        assert all(d.answer.strip() for d in found)
