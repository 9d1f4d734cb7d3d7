"""What an endpoint can do wrong, and what becomes of it."""

from __future__ import annotations

import json

import pytest
from bad_server import chat_server
from hypothesis import given
from hypothesis import strategies as st

from litee.config import load_settings
from litee.errors import ConfigError, ModelError
from litee.records import JudgeQuestion
from litee.score.endpoint import Endpoint
from litee.score.endpoint_judge import EndpointJudge, read_verdict, verdict_schema
from litee.score.llm_judge_settings import LlmJudgeSettings

YES = '{"reasons": "It is.", "verdict": "yes"}'


def question(text: str) -> JudgeQuestion:
    return JudgeQuestion("Judge.", ((text, True),), ((" Good?", False),), ("yes", "no"), "1")


def ask(server, texts, **changes):
    """Verdicts in order, and the waits between attempts."""
    waits: list[float] = []
    options = {"timeout": 5.0, "retries": 2, "concurrency": 4} | changes
    settings = LlmJudgeSettings(model="m", base_url=server.url, **options)
    endpoint = Endpoint(settings, sleep=waits.append)
    try:
        found = dict(EndpointJudge(endpoint).ask([question(t) for t in texts]))
    finally:
        endpoint.close()
    assert sorted(found) == list(range(len(texts)))
    return [found[k] for k in range(len(texts))], waits


GARBAGE = {
    "": "empty reply",
    "   \n": "empty reply",
    "no content": "empty reply",
    "maybe": "invalid JSON",
    "yes, the verdict is no": "invalid JSON",
    '{"verdict": "maybe"}': "label not allowed",
    '{"verdict": true}': "label not allowed",
    '{"verdict": ["yes"]}': "label not allowed",
    '{"verdict": "yes", "verdict": "no"}': "invalid JSON",
    '{"answer": "yes"}': "no verdict in JSON",
    '"because"': "no verdict in JSON",
    '{"reasons": "and so on': "reply cut off",
    "refusal": "refusal",
    "filtered": "refusal",
    "number": "invalid response",
    "no json": "invalid response",
    "other json": "invalid response",
    "x" * 50_000: "reply too long",
    "huge body": "reply too long",
    "half": "no connection",
    "hang up": "no connection",
    "status 400": "HTTP 400",
    "status 500": "HTTP 500",
    "status 429": "HTTP 429",
    "status 503": "HTTP 503",
}


def test_all_garbage_is_unscored_with_its_reason_and_the_run_goes_on():
    texts = [f"text {k}" for k in range(len(GARBAGE))]
    kinds = dict(zip(texts, GARBAGE, strict=True))

    def plan(body, times):
        text = body["messages"][-1]["content"].removesuffix(" Good?")
        return kinds.get(text, YES)

    asked = [t for text in texts for t in (text, f"good {text}")]
    with chat_server(plan) as server:
        found, _ = ask(server, asked)
    for kind, bad, good in zip(GARBAGE, found[::2], found[1::2], strict=True):
        assert (bad.label, bad.reason) == (None, GARBAGE[kind]), kind
        assert (good.label, good.comment, good.tokens_in, good.attempts) == (
            "yes",
            "It is.",
            100,
            1,
        )


@pytest.mark.parametrize("kind", ["hang", "drip"])
def test_no_reply_in_time_is_a_time_out(kind):
    def plan(body, times):
        return kind if body["messages"][-1]["content"].startswith("bad") else YES

    with chat_server(plan) as server:
        (bad, good), _ = ask(server, ["bad", "good"], timeout=0.3, retries=0)
    assert (bad.label, bad.reason) == (None, "time-out")
    assert good.label == "yes" and bad.seconds < 3


def test_failures_are_sent_again_with_waits_and_garbage_once_without():
    plans = {
        "busy": ["status 429 after 7", "status 503", YES],
        "late": ["status 500 after 9999", YES],
        "odd": ["garbage", YES],
        "bad": ["garbage", "garbage", YES],
        "wrong": ["status 400", YES],
    }

    def plan(body, times):
        return plans[body["messages"][-1]["content"].removesuffix(" Good?")][times - 1]

    with chat_server(plan) as server:
        found, waits = ask(server, list(plans), concurrency=1)
    assert [v.label for v in found] == ["yes", "yes", "yes", None, None]
    assert [v.attempts for v in found] == [3, 2, 2, 2, 1]
    assert found[3].reason == "invalid JSON" and found[3].tokens_out == 20
    assert waits[0] == 7 and 0 <= waits[1] <= 30 and waits[2] == 60 and waits[3:] == [0, 0]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_key_or_model_stops_the_run(status):
    with chat_server(lambda body, times: f"status {status}") as server:
        with pytest.raises(ModelError, match=f"HTTP {status}") as error:
            ask(server, ["a", "b", "c"])
    assert "OPENAI_API_KEY" in error.value.fix


def test_nobody_there_is_no_connection():
    with chat_server(lambda body, times: YES) as server:
        url = server.url
    endpoint = Endpoint(LlmJudgeSettings(model="m", base_url=url, retries=1), sleep=lambda s: None)
    reply = endpoint.chat([{"role": "user", "content": "x"}])
    endpoint.close()
    assert (reply.text, reply.reason, reply.attempts) == (None, "no connection", 2)


def test_the_key_is_sent_and_shown_nowhere(monkeypatch, capfd, caplog):
    monkeypatch.setenv("LITEE_TEST_KEY", "sk-secret")
    with chat_server(lambda body, times: "status 401") as server:
        with caplog.at_level("DEBUG"), pytest.raises(ModelError) as error:
            ask(server, ["a"], api_key_env="LITEE_TEST_KEY")
        assert set(server.keys) == {"Bearer sk-secret"}
        settings = LlmJudgeSettings(model="m", base_url=server.url, api_key_env="LITEE_TEST_KEY")
        endpoint = Endpoint(settings)
        judge = EndpointJudge(endpoint)
        shown = f"{error.value}{settings!r}{endpoint!r}{judge.id}{caplog.text}{capfd.readouterr()}"
        endpoint.close()
    assert "sk-secret" not in shown


def test_no_key_sends_none_and_a_broken_one_is_refused(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with chat_server(lambda body, times: YES) as server:
        ask(server, ["a"])
        assert server.keys == [None]
        monkeypatch.setenv("OPENAI_API_KEY", "sk-ü")
        with pytest.raises(ModelError, match="cannot be sent"):
            ask(server, ["a"])


def test_no_more_requests_at_once_than_allowed():
    with chat_server(lambda body, times: "slow") as server:
        found, _ = ask(server, [f"t{k}" for k in range(12)], concurrency=3)
    assert server.most == 3 and all(v.label == "yes" for v in found)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, "json_schema"),
        ({"structured": "json_object"}, "json_object"),
        ({"structured": "none"}, None),
    ],
)
def test_the_form_is_asked_for(changes, wanted):
    with chat_server(lambda body, times: YES) as server:
        ask(server, ["a" * 300], max_text_tokens=20, reply_tokens_name="max_completion_tokens")
        ask(server, ["a"], **changes)
    first, second = server.seen
    assert len(first["messages"][1]["content"]) == 80 + len(" [...] ") + len(" Good?")
    assert first["max_completion_tokens"] == 512 and second["max_tokens"] == 512
    assert second.get("response_format", {}).get("type") == wanted
    assert '"yes", "no"' in second["messages"][0]["content"]
    schema = first["response_format"]["json_schema"]["schema"]
    assert schema == verdict_schema(["yes", "no"], comment=True)
    assert schema["properties"]["verdict"]["enum"] == ["yes", "no"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"base_url": "ftp://x", "model": "m"}, "no http"),
        ({"base_url": "http://me:secret@x/v1", "model": "m"}, "no http"),
        ({"base_url": "http://x/v1"}, "needs model"),
        ({"price_in": 1.0}, "go together"),
        ({"structured": "xml"}, "json_schema"),
        ({"keys": 1}, "unknown setting"),
    ],
)
def test_contradictory_settings_are_refused(values, message):
    with pytest.raises(ConfigError, match=message) as error:
        load_settings(LlmJudgeSettings, None, values)
    assert "secret" not in error.value.problem


@given(st.text(max_size=60))
def test_a_reply_is_a_label_or_a_reason(text):
    label, reason, _ = read_verdict(text, ["yes", "no"])
    assert (label is None) == bool(reason) and label in {None, "yes", "no"}


@given(st.sampled_from(["yes", "no"]), st.text(max_size=30))
def test_a_proper_reply_is_read(label, reasons):
    plain = json.dumps({"reasons": reasons, "verdict": label})
    for text in (plain, f"```json\n{plain}\n```", f" {label.upper()}\n"):
        assert read_verdict(text, ["yes", "no"])[:2] == (label, "")
