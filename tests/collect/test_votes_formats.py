"""Every public layout is read into the same votes."""

import csv
import gzip
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from litee.collect.detect import choose_layout
from litee.collect.layouts import ColumnNames
from litee.collect.votes import load_pairs, load_votes
from litee.errors import ConfigError, InputError
from litee.records import Outcome


def chat(*texts):
    roles = ("user", "assistant")
    return [{"role": roles[k % 2], "content": text} for k, text in enumerate(texts)]


def table(rows, delimiter=","):
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter)
    writer.writerow(rows[0])
    writer.writerows(row.values() for row in rows)
    return out.getvalue()


def only(vote_set):
    assert len(vote_set.votes) == 1
    return vote_set.votes[0]


CANONICAL = {
    "id": "v1",
    "prompt": ["q1", "q2"],
    "response_a": ["x1", "x2"],
    "response_b": ["y1", "y2"],
    "winner": "both_bad",
    "model_a": "m",
    "model_b": "n",
    "annotator": "ann",
    "source": "s",
    "weight": 0.5,
    "reason": "why",
}


def test_canonical_row_fills_every_field(write):
    vote = only(load_votes([write([CANONICAL])]))
    assert vote.id == "v1"
    assert vote.pair.id == "v1"
    assert vote.pair.prompt == ("q1", "q2")
    assert vote.pair.response_a == ("x1", "x2")
    assert vote.pair.response_b == ("y1", "y2")
    assert (vote.pair.model_a, vote.pair.model_b, vote.pair.source) == ("m", "n", "s")
    assert (vote.winner, vote.annotator) == (Outcome.BOTH_BAD, "ann")
    assert (vote.weight, vote.reason) == (0.5, "why")


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl.gz", ".json", ".csv.gz", ".parquet"])
def test_every_file_type_gives_the_same_vote(write, tmp_path, ending):
    name = f"votes{ending}"
    if ending == ".parquet":
        pq.write_table(pa.Table.from_pylist([CANONICAL]), tmp_path / name)
        path = tmp_path / name
    elif "csv" in ending or "tsv" in ending:
        cells = {k: json.dumps(v) if isinstance(v, list) else v for k, v in CANONICAL.items()}
        path = write(table([cells], "\t" if ending == ".tsv" else ","), name)
    elif ending == ".json":
        path = write(json.dumps([CANONICAL], indent=1), name)
    else:
        path = write([CANONICAL], name)
    assert load_votes([path]).votes == load_votes([write([CANONICAL], "other.jsonl")]).votes


def test_gzip_is_recognised_by_content_not_name(tmp_path, row):
    path = tmp_path / "votes.jsonl"
    path.write_bytes(gzip.compress(json.dumps(row()).encode()))
    assert only(load_votes([path])).winner is Outcome.A


def test_byte_order_mark_is_skipped(write, row):
    text = "\ufeff" + table([row()])
    assert only(load_votes([write(text, "v.csv")])).pair.prompt == ("What is new?",)


def test_an_answer_that_is_a_json_list_stays_text_when_the_prompt_is_not(write, row):
    vote = only(load_votes([write(table([row(response_a='["a", "b"]')]), "v.csv")]))
    assert vote.pair.response_a == ('["a", "b"]',)


def test_pair_votes_share_one_pair_and_keep_repeated_raters(write):
    votes = [["e", "a"], ["e", "a"], ["f", "tie"]]
    pair = {"pair_id": "p", "source": "s", "prompt": ["q"], "response_a": ["x"], "votes": votes}
    vote_set = load_votes([write([{**pair, "response_b": ["y"]}])])
    assert [vote.winner.value for vote in vote_set.votes] == ["a", "a", "tie"]
    assert [vote.id for vote in vote_set.votes] == ["p#1", "p#2", "p#3"]
    assert len({id(vote.pair) for vote in vote_set.votes}) == 1
    assert vote_set.noticed.counts == {"one annotator votes again on the same pair": 1}


def kaggle(**changes):
    cells = {
        "id": "7",
        "model_a": "m",
        "model_b": "n",
        "prompt": '["q"]',
        "response_a": '["x"]',
        "response_b": '["y"]',
        "winner_model_a": "0",
        "winner_model_b": "1",
        "winner_tie": "0",
    }
    return {**cells, **changes}


@pytest.mark.parametrize(
    ("flags", "winner"),
    [("100", Outcome.A), ("010", Outcome.B), ("001", Outcome.TIE)],
)
def test_kaggle_one_hot(write, flags, winner):
    names = ("winner_model_a", "winner_model_b", "winner_tie")
    path = write(table([kaggle(**dict(zip(names, flags, strict=True)))]), "train.csv")
    vote = only(load_votes([path]))
    assert vote.winner is winner
    assert (vote.id, vote.pair.model_b, vote.pair.source) == ("7", "n", "train")


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (r'["caf\u00e9"]', "café"),
        (r'["\ud83d\ude00"]', "😀"),
        ('["a\nb"]', "a\nb"),
        ("['it''s', 'x'][:1]", None),
        ("['single quotes']", "single quotes"),
        ("plain text", "plain text"),
    ],
)
def test_kaggle_cells_seen_in_the_wild(write, cell, text):
    path = write(table([kaggle(response_a=cell)]), "train.csv")
    if text is None:
        with pytest.raises(InputError, match="looks like a list of turns"):
            load_votes([path])
    else:
        assert only(load_votes([path])).pair.response_a == (text,)


def test_kaggle_lone_surrogate_is_mended_and_noticed(write):
    vote_set = load_votes([write(table([kaggle(response_a=r'["a\ud83d"]')]), "train.csv")])
    assert only(vote_set).pair.response_a == ("a\ufffd",)
    assert vote_set.noticed.counts == {"broken character replaced by U+FFFD": 1}


def test_numpy_style_list_without_commas_is_refused_not_glued(write):
    path = write(table([kaggle(response_a="['first'\n 'second']")]), "train.csv")
    with pytest.raises(InputError, match=r"train.csv, row 2: .*looks like a list"):
        load_votes([path])


def test_kaggle_null_turns_are_dropped_by_reason(write):
    rows = [
        kaggle(id="1", response_a="[null]"),
        kaggle(id="2", prompt='["q","r"]', response_a='["x",null]', response_b='["y","z"]'),
        kaggle(id="3"),
    ]
    vote_set = load_votes([write(table(rows), "train.csv")])
    assert vote_set.dropped.counts == {"null response": 1, "null turn": 1}
    assert vote_set.dropped.examples["null turn"][0].endswith("train.csv, row 3")
    assert only(vote_set).id == "3"


def test_kaggle_soft_or_double_winner_is_an_error(write):
    path = write(table([kaggle(winner_tie="1")]), "train.csv")
    with pytest.raises(InputError, match="no one-hot winner"):
        load_votes([path])


ARENA_33K = {
    "question_id": "abc",
    "model_a": "m",
    "model_b": "n",
    "winner": "tie (bothbad)",
    "judge": "arena_user_1",
    "conversation_a": chat("q", "x"),
    "conversation_b": chat("q", "y"),
    "turn": 1,
    "anony": True,
    "language": "English",
    "tstamp": 1.5,
}


def test_arena_33k(write):
    vote = only(load_votes([write([ARENA_33K])]))
    assert (vote.id, vote.annotator, vote.winner) == ("abc", "arena_user_1", Outcome.BOTH_BAD)
    assert vote.pair.response_b == ("y",)


def test_arena_140k_parquet_with_content_parts(tmp_path):
    def parts(text):
        return [{"type": "text", "text": text, "image": None, "mimeType": None}]

    def side(answer):
        return [
            {"role": "user", "content": parts("q")},
            {"role": "assistant", "content": parts(answer)},
        ]

    rows = [
        {
            "id": "1",
            "model_a": "m",
            "model_b": "n",
            "winner": "both_bad",
            "conversation_a": side("x"),
            "conversation_b": side("y"),
            "full_conversation": None,
        }
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    vote = only(load_votes([tmp_path / "t.parquet"]))
    assert (vote.pair.prompt, vote.pair.response_a, vote.winner.value) == (
        ("q",),
        ("x",),
        "both_bad",
    )


def test_arena_140k_full_conversation_alone(write):
    def message(text):
        return {"role": "x", "content": [{"type": "text", "text": text}]}

    turns = [
        {"user": message("q"), "model_side_a": message("x"), "model_side_b": message("y")},
        {"user": message("r"), "model_side_a": message("x2"), "model_side_b": message("y2")},
    ]
    path = write([{"id": "1", "winner": "model_b", "full_conversation": turns}])
    vote = only(load_votes([path]))
    assert vote.pair.prompt == ("q", "r")
    assert vote.pair.response_b == ("y", "y2")
    assert vote.winner is Outcome.B


def test_an_image_drops_the_row(write):
    bad = {**ARENA_33K, "question_id": "d"}
    bad["conversation_a"] = [
        {"role": "user", "content": [{"type": "image", "image": "…"}]},
        {"role": "assistant", "content": "x"},
    ]
    vote_set = load_votes([write([ARENA_33K, bad])])
    assert vote_set.dropped.counts == {"message with an image or a file": 1}


def test_conversations_with_other_user_turns_are_dropped(write):
    bad = {**ARENA_33K, "question_id": "d", "conversation_b": chat("other", "y")}
    vote_set = load_votes([write([ARENA_33K, bad])])
    assert vote_set.dropped.counts == {"user turns differ between A and B": 1}


def mt_bench(turn, judge="expert_0", winner="model_a"):
    return {
        "question_id": 81,
        "model_a": "m",
        "model_b": "n",
        "winner": winner,
        "judge": judge,
        "conversation_a": chat("q1", "x1", "q2", "x2"),
        "conversation_b": chat("q1", "y1", "q2", "y2"),
        "turn": turn,
    }


def test_mt_bench_turn_one_sees_the_first_turn_only(write):
    rows = [mt_bench(1), mt_bench(2), mt_bench(1, "expert_1", "tie")]
    votes = load_votes([write(rows)]).votes
    assert [vote.pair.prompt for vote in votes] == [("q1",), ("q1", "q2"), ("q1",)]
    assert [vote.pair.id for vote in votes] == ["mtb-81-1-m-n", "mtb-81-2-m-n", "mtb-81-1-m-n"]
    assert votes[0].pair is votes[2].pair
    assert [vote.annotator for vote in votes] == ["expert_0", "expert_0", "expert_1"]


def test_trl_standard_and_conversational_rows_agree(write):
    standard = {"prompt": "q", "chosen": "good", "rejected": "bad"}
    explicit = {"prompt": chat("q"), "chosen": [chat("", "good")[1]]}
    explicit["rejected"] = [chat("", "bad")[1]]
    implicit = {"chosen": chat("q", "good"), "rejected": chat("q", "bad")}
    ultra = {"prompt": "q", **implicit}
    transcript = {
        "chosen": "\n\nHuman: q\n\nAssistant: good",
        "rejected": "\n\nHuman: q\n\nAssistant: bad",
    }
    for number, cells in enumerate((standard, explicit, implicit, ultra, transcript)):
        vote = only(load_votes([write([cells], f"f{number}.jsonl")]))
        assert (vote.pair.prompt, vote.pair.response_a, vote.pair.response_b, vote.winner) == (
            ("q",),
            ("good",),
            ("bad",),
            Outcome.A,
        )


def test_trl_history_belongs_to_both_answers(write):
    cells = {
        "prompt": chat("q1", "x1", "q2"),
        "chosen": [{"role": "assistant", "content": "good"}],
        "rejected": [{"role": "assistant", "content": "bad"}],
    }
    pair = only(load_votes([write([cells])])).pair
    assert pair.prompt == ("q1", "q2")
    assert pair.response_a == ("x1", "good")
    assert pair.response_b == ("x1", "bad")


def test_trl_margin_and_system_message_are_noticed(write):
    system = [{"role": "system", "content": "be brief"}]
    cells = {"chosen": system + chat("q", "x"), "rejected": system + chat("q", "y"), "margin": 0.5}
    assert load_votes([write([cells])]).noticed.counts == {
        "system message left out": 1,
        "margin or label column ignored": 1,
    }


def test_trl_plain_text_without_a_prompt_is_an_error(write):
    with pytest.raises(InputError, match="no 'prompt' column"):
        load_votes([write([{"chosen": "The answer is 4", "rejected": "The answer is 5"}])])


def test_evalica_with_names_only_says_the_texts_are_missing(write):
    path = write("left,right,winner\nm,n,left\n", "v.csv")
    with pytest.raises(InputError, match="texts are missing") as caught:
        load_votes([path])
    assert "response_left" in caught.value.fix


def test_evalica_with_texts(write):
    text = "left,right,winner,prompt,response_left,response_right\nm,n,right,q,x,y\n"
    vote = only(load_votes([write(text, "v.csv")]))
    assert (vote.pair.model_a, vote.pair.response_b, vote.winner) == ("m", ("y",), Outcome.B)


def test_columns_named_by_the_user(write):
    names = ColumnNames(
        prompt="question",
        response_a="one",
        response_b="two",
        winner="vote",
        labels={"1": "a", "2": "b", "0": "tie"},
    )
    path = write("question,one,two,vote\nq,x,y,2\n", "v.csv")
    vote = only(load_votes([path], columns=names))
    assert (vote.pair.response_a, vote.winner) == (("x",), Outcome.B)


def test_labels_given_as_numbers_in_json(write):
    names = ColumnNames(winner="vote", labels={"1": "a", "0": "tie"})
    cells = {"prompt": "q", "response_a": "x", "response_b": "y", "vote": 1}
    assert only(load_votes([write([cells])], columns=names)).winner is Outcome.A


def test_a_named_column_must_exist(write, row):
    with pytest.raises(InputError, match=r"missing column 'rater'.*found: prompt, response_a"):
        load_votes([write([row()])], columns=ColumnNames(annotator="rater"))


def test_unknown_format_and_contradiction_are_config_errors(write, row):
    path = write([row()])
    with pytest.raises(ConfigError, match="unknown format 'kaggle'"):
        load_votes([path], format="kaggle")
    with pytest.raises(ConfigError, match="together with"):
        load_votes([path], format="trl", columns=ColumnNames(prompt="x"))
    with pytest.raises(ConfigError, match="needs the columns' names"):
        load_votes([path], format="columns")
    with pytest.raises(ConfigError, match="labels"):
        load_votes([path], columns=ColumnNames(labels={"1": "left"}))


@pytest.mark.parametrize(
    ("columns", "name"),
    [
        ("pair_id prompt response_a response_b votes", "pair-votes"),
        ("id prompt response_a response_b winner_model_a winner_model_b winner_tie", "arena"),
        ("question_id model_a model_b winner judge conversation_a conversation_b turn", "mt-bench"),
        ("question_id winner judge conversation_a conversation_b turn tstamp", "arena"),
        ("id winner full_conversation", "arena"),
        ("chosen rejected", "trl"),
        ("prompt response_a response_b winner", "canonical"),
    ],
)
def test_detection(columns, name):
    assert choose_layout(columns.split()).name == name


def test_pairs_for_prediction_need_no_winner(write, row):
    rows = [row(winner=...), row(winner=..., prompt="other", id="x")]
    pairs = load_pairs(write(rows, "ask.jsonl"))
    assert [pair.id for pair in pairs] == ["ask:1", "x"]
    assert (
        load_pairs(
            write(
                table([{"id": "9", "prompt": "q", "response_a": "x", "response_b": "y"}]), "t.csv"
            )
        )[0].id
        == "9"
    )


def test_pairs_ignore_labels_and_merge_votes_on_a_pair(write, row):
    votes = [["e", "nonsense"], ["f", "b"]]
    cells = {"pair_id": "p", "prompt": "q", "response_a": "x", "response_b": "y", "votes": votes}
    assert len(load_pairs(write([cells]))) == 1
    assert len(load_pairs(write([row(winner="?")], "w.jsonl"))) == 1


def test_kaggle_test_file_for_prediction(write):
    cells = {k: v for k, v in kaggle().items() if "winner" not in k and "model" not in k}
    pair = load_pairs(write(table([cells]), "test.csv"))[0]
    assert (pair.id, pair.prompt) == ("7", ("q",))


def test_an_unusable_row_is_an_error_for_prediction(write, row):
    path = write([row(), row(response_a=None)])
    with pytest.raises(InputError, match="row 2: null response"):
        load_pairs(path)
