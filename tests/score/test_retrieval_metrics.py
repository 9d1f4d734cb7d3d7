"""Ragas' metrics with a scripted model: values by hand, and what goes wrong."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from bad_server import chat_server

pytest.importorskip("ragas", reason="ragas is an extra of its own")

from litee.errors import ModelError
from litee.score.answers import Answer
from litee.score.endpoint import Reply
from litee.score.llm_judge_engine import VerdictStore
from litee.score.retrieval_metrics import NO_CONTEXTS, NOTHING_FOUND, RagasWriter, Retrieval
from litee.score.retrieval_writers import StoredWriter, strict_schema

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

ALL = ("faithfulness", "answer_relevancy", "context_precision", "context_recall")


class Scripted:
    """Fills ragas' forms by a function of the form's title and the prompt."""

    at_once = 4
    id = "scripted"

    def __init__(self, fill) -> None:
        self.fill = fill
        self.asked = 0

    def write(self, prompt, schema, check) -> Reply:
        self.asked += 1
        text = self.fill(schema["title"], prompt)
        if isinstance(text, Reply):
            return text
        text = text if isinstance(text, str) else json.dumps(text)
        reason = check(text)
        return Reply(None if reason else text, reason, 100, 10, 0.5)


class Letters:
    """Unit vectors of letter counts."""

    def encode(self, texts):
        rows = [
            [text.lower().count(c) + 1e-9 for c in "abcdefghijklmnopqrstuvwxyz"] for text in texts
        ]
        found = np.array(rows)
        return found / np.linalg.norm(found, axis=1, keepdims=True)


def good(title, prompt):
    """Two of three statements hold, the second context of two is of use, one half is recalled."""
    verdicts = [1, 1, 0]
    forms = {
        "StatementGeneratorOutput": {"statements": ["one", "two", "three"]},
        "NLIStatementOutput": {
            "statements": [{"statement": "s", "reason": "r", "verdict": v} for v in verdicts]
        },
        "AnswerRelevanceOutput": {"question": "Why?", "noncommittal": 0},
        "ContextPrecisionOutput": {"reason": "", "verdict": int("zebra" in prompt)},
        "ContextRecallOutput": {
            "classifications": [{"statement": "s", "reason": "r", "attributed": v} for v in (1, 0)]
        },
        "ClassificationWithReason": {
            "TP": [{"statement": "s", "reason": "r"}],
            "FP": [],
            "FN": [{"statement": "s", "reason": "r"}],
        },
    }
    return forms[title]


def row(answer="So it is.", reference="Thus.", contexts=("of no use", "zebra"), prompt="Why?"):
    return Answer({}, prompt, answer, reference, contexts)


def scores(fill, rows, columns=ALL, store=None):
    scripted = Scripted(fill)
    metric = Retrieval(columns, StoredWriter(scripted, store), Letters)
    found = [[s.value if s.value is not None else s.reason for s in r] for r in metric.score(rows)]
    return found, metric.writer.usage, scripted


def test_values_by_hand():
    (found,), usage, _ = scores(good, [row()], (*ALL, "answer_correctness"))
    faithful, relevant, precise, recalled, correct = found
    assert faithful == pytest.approx(2 / 3)
    assert relevant == pytest.approx(1)
    assert precise == pytest.approx(1 / 2, abs=1e-6)  # the useful one stands second
    assert recalled == pytest.approx(1 / 2)
    one, two = Letters().encode(["So it is.", "Thus."])
    f1 = 1 / (1 + 0.5 * (0 + 1))
    assert correct == pytest.approx(0.75 * f1 + 0.25 * float(one @ two))
    assert usage.tokens_in == 100 * usage.asked > 0


def test_what_is_missing_is_the_reason_and_costs_nothing():
    rows = [
        row(answer=None), row(answer=" "), row(reference=""), row(contexts=()),
        row(contexts=(" ",)), row(prompt=""),
    ]  # fmt: skip
    found, usage, _ = scores(lambda title, prompt: good(title, "zebra"), rows)
    assert found[0][:2] == ["no answer"] * 2 and found[0][2:] == pytest.approx([1, 0.5])
    assert found[1][:2] == ["empty answer", "empty answer"]
    assert found[2][2:] == ["no reference", "no reference"]
    assert found[3] == found[4] and found[3][0] == found[3][2] == NO_CONTEXTS
    assert set(found[5]) == {"no prompt"}
    assert usage.unscored == {}


@pytest.mark.parametrize(
    ("fill", "reason"),
    [
        (lambda t, p: "no JSON at all", "invalid JSON"),
        (lambda t, p: {"other": 1}, "invalid JSON"),
        (lambda t, p: Reply(None, "time-out"), "time-out"),
        (lambda t, p: Reply(None, "HTTP 500"), "HTTP 500"),
    ],
)
def test_garbage_is_unscored_and_the_run_goes_on(fill, reason):
    def sometimes(title, prompt):
        return fill(title, prompt) if "poison" in prompt else good(title, prompt)

    columns = ("faithfulness", "answer_correctness", "answer_relevancy")
    rows = [row(), row(answer="poison"), row()]
    found, usage, _ = scores(sometimes, rows, columns)
    assert found[1] == [reason] * 3
    assert found[0] == found[2] and all(isinstance(v, float) for v in found[0])
    assert usage.unscored == {reason: 3}


def test_finding_nothing_is_no_perfect_match_and_no_nan():
    def nothing(title, prompt):
        empty = {
            "StatementGeneratorOutput": {"statements": []},
            "AnswerRelevanceOutput": {"question": "", "noncommittal": 0},
            "ContextRecallOutput": {"classifications": []},
        }
        return empty.get(title) or good(title, prompt)

    columns = ("faithfulness", "answer_relevancy", "context_recall", "answer_correctness")
    (found,), _, _ = scores(nothing, [row()], columns)
    assert found == [NOTHING_FOUND] * 4

    def no_verdicts(title, prompt):
        return {"statements": []} if title == "NLIStatementOutput" else good(title, prompt)

    (found,), _, _ = scores(no_verdicts, [row()], ("faithfulness",))
    assert found == [NOTHING_FOUND]


def test_a_wrong_key_stops_the_run():
    def refuse(title, prompt):
        raise ModelError("HTTP 401")

    with pytest.raises(ModelError):
        scores(refuse, [row(), row()])


def test_replies_are_kept_and_failures_are_not(tmp_path):
    def flaky(title, prompt):
        return Reply(None, "time-out") if title == "NLIStatementOutput" else good(title, prompt)

    results = []
    for fill in (flaky, good, flaky):
        store = VerdictStore(tmp_path / "v.sqlite")
        found, usage, scripted = scores(fill, [row()], ("faithfulness",), store)
        store.close()
        results.append((found[0][0], scripted.asked, usage.stored))
    assert results == [
        ("time-out", 2, 0),
        (pytest.approx(2 / 3), 1, 1),
        (pytest.approx(2 / 3), 0, 2),
    ]


def test_no_use_is_reported():
    import os

    from ragas._analytics import do_not_track

    assert os.environ["RAGAS_DO_NOT_TRACK"] == "true" and do_not_track()


def test_forms_are_strict_for_endpoints():
    seen = []

    def look(title, prompt):
        return good(title, prompt)

    writer = Scripted(look)
    plain = writer.write
    writer.write = lambda p, schema, check: (seen.append(schema), plain(p, schema, check))[1]
    Retrieval(("faithfulness",), StoredWriter(writer, None), Letters).score([row()])
    for schema in map(strict_schema, seen):
        objects = [schema, *schema.get("$defs", {}).values()]
        for each in objects:
            assert each["additionalProperties"] is False
            assert each["required"] == list(each["properties"])


def test_ragas_may_ask_without_a_loop():
    from pydantic import BaseModel

    class Form(BaseModel):
        word: str

    writer = RagasWriter(StoredWriter(Scripted(lambda t, p: '```json\n{"word": "x"}\n```'), None))
    assert writer.generate("Say x.", Form).word == "x"


def test_the_command_asks_an_endpoint_and_keeps_reasons(tmp_path, monkeypatch, capsys):
    """End to end without a key: one whole row, one without contexts, one with broken replies."""
    from litee.cli.score import score

    monkeypatch.setenv("LITEE_CACHE", str(tmp_path / "cache"))
    rows = [
        {"prompt": "Why?", "answer": "So.", "reference": "Thus.", "contexts": ["x", "zebra"]},
        {"prompt": "Why not?", "answer": "So.", "reference": "Thus."},
        {"prompt": "Why broken?", "answer": "So.", "reference": "Thus.", "contexts": ["broken"]},
    ]
    answers = tmp_path / "answers.jsonl"
    answers.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = tmp_path / "llm.yaml"
    settings.write_text("retries: 0\ntimeout: 10\n")

    def plan(body, times):
        text = body["messages"][-1]["content"]
        if "broken" in text:
            return "no JSON at all"
        return json.dumps(good(body["response_format"]["json_schema"]["schema"]["title"], text))

    out = tmp_path / "ragas.csv"
    with chat_server(plan) as server:
        score(answers, out=out, metrics=",".join(ALL[:1] + ALL[2:]), llm="m", llm_url=server.url,
              llm_config=settings)  # fmt: skip
        assert set(server.keys) == {None}
    one, two, three = csv.DictReader(out.read_text(encoding="utf-8").splitlines())
    assert float(one["faithfulness"]) == pytest.approx(2 / 3)
    assert float(one["context_recall"]) == pytest.approx(1 / 2)
    assert two["faithfulness"] == "" and NO_CONTEXTS in two["unscored"]
    assert three["context_recall"] == "" and "invalid JSON" in three["unscored"]
    assert "nan" not in out.read_text().lower()
    assert "1 no contexts" in capsys.readouterr().out
