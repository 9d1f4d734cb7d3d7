"""Broken files end in an InputError with file, row and fix, never in a traceback."""

import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from litee.collect.votes import load_votes
from litee.errors import InputError

HEAD = "prompt,response_a,response_b,winner\n"


def fails(path, **options):
    with pytest.raises(InputError) as caught:
        load_votes([path], **options)
    error = caught.value
    assert error.fix, "every error says what to do"
    assert path.name in error.place
    return error


def test_unclosed_quote_names_the_record_where_it_opens(write):
    error = fails(write(HEAD + 'q,x,y,a\nq2,"x2,y2,b\nq3,x3,y3,a\n', "v.csv"))
    assert error.place.endswith("v.csv, row 3")
    assert "line 3" in error.problem
    assert "never closed" in error.problem


def test_text_after_a_closing_quote(write):
    error = fails(write(HEAD + 'q,"x"y,z,a\n', "v.csv"))
    assert error.place.endswith("row 2")


def test_old_mac_line_ends_are_named(write):
    error = fails(write("prompt,response_a,response_b,winner\rq,x,y,a\r", "v.csv"))
    assert "carriage return" in error.problem and "tr '\\r' '\\n'" in error.fix


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("sign", [";", "\t"])
def test_semicolons_and_tabs_of_spreadsheets_are_read(write, sign, mark):
    head = mark + HEAD.replace(",", sign)
    rows = f"q, and more{sign}x, y{sign}z{sign}a\r\n"
    (vote,) = load_votes([write(head + rows, "v.csv")]).votes
    assert (vote.pair.prompt, vote.pair.response_a) == (("q, and more",), ("x, y",))


@pytest.mark.parametrize("line", ["q,x,y\n", "q,x,y,a,more\n"])
def test_ragged_row(write, line):
    error = fails(write(HEAD + "q,x,y,a\n" + line, "v.csv"))
    assert error.place.endswith("row 3")
    assert "the header has 4" in error.problem


def test_rows_count_records_not_lines(write):
    error = fails(write(HEAD + '"q\nq\nq",x,y,a\nq,x,y,oops\n', "v.csv"))
    assert error.place.endswith("row 3")


def test_header_with_a_name_twice(write):
    assert "'winner' more than once" in fails(write("prompt,winner,winner\n", "v.csv")).problem


@pytest.mark.parametrize("line", ['{"prompt": ', "[1]", "nonsense", "3", '"text"'])
def test_broken_json_line(write, row, line):
    error = fails(write(json.dumps(row()) + "\n" + line + "\n"))
    assert error.place.endswith("row 2")


def test_deeply_nested_json_is_an_input_error(write, row):
    fails(write(json.dumps(row()) + "\n" + "[" * 100_000 + "\n"))


def test_broken_json_array(write):
    assert "broken JSON" in fails(write('[{"prompt": "q"', "v.json")).problem


def test_not_utf8_names_the_byte(write):
    head = HEAD.encode()
    error = fails(write(head + b"q,caf\xe9,y,a\n", "v.csv"))
    assert f"offset {len(head) + 5}" in error.problem
    assert "line 2" in error.problem
    assert "iconv" in error.fix


def test_utf16_is_recognised(write):
    error = fails(write((HEAD + "q,x,y,a\n").encode("utf-16"), "v.csv"))
    assert "UTF-16" in error.problem


def test_broken_gzip(tmp_path):
    path = tmp_path / "v.jsonl.gz"
    path.write_bytes(b"\x1f\x8b\x08\x00garbage")
    assert "gzip" in fails(path).problem


def test_broken_parquet(write):
    assert "parquet" in fails(write(b"PAR1 no", "v.parquet")).problem


def test_missing_file_folder_and_unknown_ending(write, tmp_path):
    assert "no such file" in fails(tmp_path / "none.csv").problem
    folder = tmp_path / "folder.csv"
    folder.mkdir()
    assert "folder" in fails(folder).problem
    assert ".parquet" in fails(write("x", "votes.xlsx")).fix


@pytest.mark.parametrize("name", ["v.csv", "v.jsonl", "v.json"])
def test_empty_file(write, name):
    assert "no rows" in fails(write("", name)).problem


def test_missing_column_names_found_and_needed(write, row):
    error = fails(write([row(response_b=...)]))
    assert "'response_b'" in error.problem
    assert "found: prompt, response_a, winner" in error.problem


def test_column_missing_further_down(write, row):
    error = fails(write([row(), row(winner=...)]))
    assert error.place.endswith("row 2")


def test_foreign_columns(write):
    error = fails(write("x,y\n1,2\n", "v.csv"))
    assert "x, y" in error.problem


@pytest.mark.parametrize("label", ["A", "model a", "left", "1", "tie (?)", "nan"])
def test_unknown_label_lists_what_is_allowed(write, row, label):
    error = fails(write([row(), row(winner=label)]))
    assert error.place.endswith("row 2")
    assert "allowed: a, b, tie, both_bad" in error.problem


@pytest.mark.parametrize("weight", ["nan", float("nan"), 0, -1, "inf", "x", True, [1], 10**400])
def test_bad_weight(write, row, weight):
    assert "weight" in fails(write([row(weight=weight)])).problem


@pytest.mark.parametrize("column", ["prompt", "response_a", "winner", "id", "annotator"])
def test_nan_cell(write, row, column):
    assert "NaN" in fails(write([row(**{column: float("nan")})])).problem


def test_nan_cell_in_parquet(tmp_path, row):
    path = tmp_path / "v.parquet"
    table = pa.table({**{k: [v] for k, v in row().items()}, "response_a": [float("nan")]})
    pq.write_table(table, path)
    assert "NaN" in fails(path).problem


@pytest.mark.parametrize("value", [3, 2.5, True, {"text": "x"}, ["x", 3], [["x"]]])
def test_a_cell_of_the_wrong_type(write, row, value):
    assert "'response_a'" in fails(write([row(response_a=value)])).problem


def test_one_id_with_two_contents(write, row):
    error = fails(write([row(id="7"), row(id="7", response_a="else")]))
    assert error.place.endswith("row 2")
    assert re.search(r"votes.jsonl, row 1$", error.problem)


def test_one_pair_id_with_two_contents(write, row):
    error = fails(write([row(pair_id="7"), row(pair_id="7", response_a="else")]))
    assert "another content" in error.problem


def test_ids_are_checked_over_files(write, row):
    one = write([row(id="7")], "one.jsonl")
    two = write([row(id="7", prompt="else")], "two.jsonl")
    with pytest.raises(InputError, match=r"two.jsonl, row 1: .*one.jsonl, row 1"):
        load_votes([one, two])


def test_no_usable_vote_lists_the_reasons(write, row):
    error = fails(
        write([row(response_a=None), row(prompt=None), row(winner=None), row(prompt=None)])
    )
    assert "null response: 1" in error.problem
    assert "null prompt: 2" in error.problem
    assert "no winner: 1" in error.problem


def test_strict_refuses_dropped_and_odd_rows(write, row):
    error = fails(write([row(), row(response_a=None)]), strict=True)
    assert (error.place.endswith("row 2"), error.problem) == (True, "null response")
    error = fails(write([row(), row(response_a="")]), strict=True)
    assert (error.place.endswith("row 2"), error.problem) == (True, "empty answer")
    assert len(load_votes([write([row()])], strict=True).votes) == 1


FUZZ = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@FUZZ
@given(st.binary(max_size=60), st.sampled_from(["v.csv", "v.jsonl", "v.json", "v.tsv"]))
@example(b'"', "v.csv")
@example(b"a\rb\rc", "v.csv")
@example(b"[", "v.json")
@example(b"{}\n", "v.jsonl")
def test_any_bytes_give_votes_or_an_input_error(write, data, name):
    for content in (data, HEAD.encode() + data, b'{"prompt": "q"}\n' + data):
        try:
            load_votes([write(content, name)])
        except InputError as error:
            assert error.fix


@FUZZ
@given(st.data())
def test_a_good_file_damaged_at_one_byte(write, data):
    good = (HEAD + 'q,"x, ""x""",y,a\nr,x,"y\ny",b\n').encode()
    place = data.draw(st.integers(0, len(good) - 1))
    byte = data.draw(st.integers(0, 255))
    try:
        load_votes([write(good[:place] + bytes([byte]) + good[place + 1 :], "v.csv")])
    except InputError as error:
        assert error.fix
        assert "v.csv" in error.place


CELL = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool", None]), "content": CELL}
)
TURN = st.fixed_dictionaries({"user": CELL, "model_side_a": MESSAGE, "model_side_b": MESSAGE})
ANY = CELL | st.lists(MESSAGE, max_size=3) | st.lists(TURN, max_size=2)
LAYOUT_COLUMNS = st.sampled_from(
    [
        ("prompt", "response_a", "response_b", "winner", "weight", "id", "annotator"),
        ("prompt", "chosen", "rejected"),
        ("pair_id", "prompt", "response_a", "response_b", "votes"),
        ("conversation_a", "conversation_b", "winner"),
        ("full_conversation", "winner"),
        ("question_id", "turn", "judge", "conversation_a", "conversation_b", "winner"),
        ("prompt", "response_a", "response_b", "winner_model_a", "winner_model_b", "winner_tie"),
    ]
)


@FUZZ
@given(st.data(), LAYOUT_COLUMNS)
def test_any_json_cells_give_votes_or_an_input_error(write, data, columns):
    cells = {column: data.draw(ANY) for column in columns}
    try:
        load_votes([write([cells])])
    except InputError as error:
        assert error.fix
