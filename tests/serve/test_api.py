"""OpenAI's own client against the server, unchanged; the judge's and best-of-n's routes."""

from __future__ import annotations

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import openai
import pytest
from api_fixtures import Letters, make_adapter, running, tiny_service

from litee.predict.generation import Engine, Request, write_answers
from litee.predict.generation_model import GenerationModel
from litee.predict.generation_sampling import Sampling
from litee.predict.generation_settings import ModelSettings
from litee.records import Message

KEY = "a-secret-of-many-characters"
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def adapters(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    return {name: make_adapter(tiny("llama"), folder / name, k) for k, name in enumerate("xy")}


@pytest.fixture(scope="module")
def judge():
    return Letters()


@pytest.fixture(scope="module")
def address(tiny, adapters, judge):
    with running(tiny_service(tiny("llama"), adapters, judge=judge), [KEY]) as found:
        yield found


@pytest.fixture(scope="module")
def client(address):
    with openai.OpenAI(base_url=f"{address}/v1", api_key=KEY, max_retries=0) as found:
        yield found


def post(address, path, body, key=KEY, **given):
    return httpx2.post(
        address + path, json=body, headers={"authorization": f"Bearer {key}"}, timeout=60, **given
    )


def expected(tiny, adapters, adapter, sampling, messages=HELLO):
    model = GenerationModel(ModelSettings(backbone=str(tiny("llama")), threads=1), adapters)
    said = tuple(Message(m["role"], m["content"]) for m in messages)
    return write_answers(Engine(model), [Request(said, sampling, adapter)])[0]


def test_models_are_the_base_and_its_adapters(client):
    assert [m.id for m in client.models.list()] == ["tiny", "x", "y"]
    assert client.models.retrieve("x").object == "model"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("z")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize("model", ["tiny", "x"])
def test_chat_and_stream_give_the_model_s_answer(client, tiny, adapters, model):
    adapter = "" if model == "tiny" else model
    sampling = Sampling(1.0, 0.9, 1.0, 10, 7)
    written = expected(tiny, adapters, adapter, sampling)
    asked = {"model": model, "messages": HELLO, "temperature": 1.0, "top_p": 0.9, "seed": 7}
    asked |= {"max_tokens": 10, "extra_body": {"repetition_penalty": 1.0}}

    whole = client.chat.completions.create(**asked)
    chunks = list(
        client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )

    choice = whole.choices[0]
    assert (choice.message.content, choice.finish_reason) == (written.text, written.finish_reason)
    assert whole.usage.completion_tokens == written.tokens
    assert whole.usage.prompt_tokens == written.prompt_tokens
    deltas = [c.choices[0] for c in chunks[:-1]]
    assert "".join(d.delta.content or "" for d in deltas) == written.text
    assert deltas[0].delta.role == "assistant"
    assert [d.finish_reason for d in deltas if d.finish_reason] == [written.finish_reason]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == written.tokens + written.prompt_tokens
    assert all(c.usage is None for c in chunks[:-1])
    assert len({c.id for c in chunks}) == 1


def test_several_answers_have_several_seeds(client, tiny, adapters):
    asked = {"model": "tiny", "messages": HELLO, "temperature": 2.0, "seed": 3, "max_tokens": 6}
    whole = client.chat.completions.create(**asked, n=3)
    texts: dict[int, str] = {}
    for chunk in client.chat.completions.create(**asked, n=3, stream=True):
        choice = chunk.choices[0]
        texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")

    assert [c.index for c in whole.choices] == [0, 1, 2]
    assert [c.message.content for c in whole.choices] == [texts[k] for k in range(3)]
    assert len(set(texts.values())) == 3
    assert texts[2] == expected(tiny, adapters, "", Sampling(2.0, 0.9, 1.2, 6, 5)).text


def test_dialogues_system_messages_parts_and_stops(client, tiny, adapters):
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "And?"},
    ]
    plain = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    plain += messages[2:]
    greedy = Sampling(0.0, 1.0, 1.2, 12, 0)
    written = expected(tiny, adapters, "", greedy, plain)
    assert len(written.text) > 3
    asked = {"model": "tiny", "messages": messages, "temperature": 0}

    whole = client.chat.completions.create(**asked)
    cut = client.chat.completions.create(**asked, stop=written.text[2])

    assert whole.choices[0].message.content == written.text
    text = cut.choices[0].message.content
    assert text == written.text[: written.text.index(written.text[2])]
    assert cut.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"model": "gpt-4o"}, 404, "model"),
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, 400, None),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, 400, None),
        ({"messages": [{"role": "user", "content": "a" * 2000}]}, 400, None),
        ({"temperature": 3}, 400, "temperature"),
        ({"n": 65}, 400, "n"),
        ({"logit_bias": {"5": 1}}, 400, "logit_bias"),
        ({"frequency_penalty": 1}, 400, "frequency_penalty"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, 400, "tools"),
        ({"stop": ""}, 400, None),
        ({"stream_options": {"include_usage": True}}, 400, "stream_options"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_are_openai_s(client, change, status, param, stream):
    if "stream_options" in change and stream:
        return
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(
            **{"model": "tiny", "messages": HELLO, **change}, stream=stream
        )
    error = caught.value
    assert error.status_code == status, error.message
    assert error.type == "invalid_request_error"
    assert error.body["message"]
    if param is not None:
        assert error.param == param


def test_half_a_surrogate_is_the_clients_fault(address):
    raw = json.dumps({"model": "tiny", "messages": [{"role": "user", "content": "\ud800"}]})
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    response = httpx2.post(f"{address}/v1/chat/completions", content=raw, headers=headers)
    assert response.status_code == 400
    assert "surrogate" in response.json()["error"]["message"]


# keys


@pytest.mark.parametrize("key", ["wrong-key-of-many-characters", "", KEY[:-1], KEY + "x"])
def test_wrong_keys_stay_outside(address, key):
    with openai.OpenAI(base_url=f"{address}/v1", api_key=key or "none", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            client.models.list()
    assert caught.value.code == "invalid_api_key"
    assert key == "" or key not in caught.value.message
    assert httpx2.get(f"{address}/metrics").status_code == 401
    assert httpx2.get(f"{address}/health").status_code == 200


# the judge


def test_one_pair_and_many(address):
    pair = {"prompt": "q", "response_a": "longer", "response_b": "short"}
    one = post(address, "/v1/judge", pair).json()
    assert one["model"] == "letters"
    assert one["data"] == [
        {
            "id": "0",
            "probabilities": {"a": 0.6, "b": 0.3, "tie": 0.1},
            "winner": "a",
            "reward_a": 6.0,
            "reward_b": 5.0,
            "tokens_cut": [0, 0, 0],
        }
    ]
    turns = {"id": "t", "prompt": ["a", "b"], "response_a": ["", "x"], "response_b": ["", "xyz"]}
    both = post(address, "/v1/judge", {"pairs": [pair, turns]}).json()["data"]
    assert [(j["id"], j["winner"]) for j in both] == [("0", "a"), ("t", "b")]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"pairs": []},
        {"prompt": "q", "response_a": "x"},
        {"prompt": "q", "response_a": "x", "response_b": ["y", "z"]},
        {"pairs": [{"prompt": "q", "response_a": "x", "response_b": "y"}], "prompt": "q"},
        {"pairs": [{"prompt": [], "response_a": [], "response_b": []}]},
        {"pairs": [{"prompt": "q", "response_a": "x", "response_b": "y"}] * 513},
        {"prompt": "q", "response_a": "x", "response_b": "y", "model_a": "secret"},
    ],
)
def test_pairs_that_make_no_sense(address, body):
    response = post(address, "/v1/judge", body)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_the_best_of_four_is_the_one_that_the_judge_rewards(address):
    asked = {"model": "tiny", "messages": HELLO, "n": 4, "seed": 1, "temperature": 2}

    found = post(address, "/v1/best-of", {**asked, "return_candidates": True}).json()
    short = post(address, "/v1/best-of", asked).json()

    rewards = [c["reward"] for c in found["candidates"]]
    texts = [c["message"]["content"] for c in found["candidates"]]
    assert rewards == [float(len(t)) for t in texts]
    assert found["reward"] == max(rewards)
    assert found["choices"][0]["message"]["content"] == texts[rewards.index(max(rewards))]
    assert found["kl_bound_nats"] == pytest.approx(0.63629, abs=1e-5)
    assert found["n"] == 4
    assert "candidates" not in short
    assert short["choices"][0]["message"] == found["choices"][0]["message"]
    broken = [{"role": "user", "content": "a"}] * 2
    assert post(address, "/v1/best-of", {**asked, "messages": broken}).status_code == 400


def test_without_a_judge_its_routes_say_so(tiny):
    with running(tiny_service(tiny("llama"))) as address:
        pair = {"prompt": "q", "response_a": "x", "response_b": "y"}
        response = post(address, "/v1/judge", pair)
        assert (response.status_code, response.json()["error"]["code"]) == (404, "no_judge")
        best = post(address, "/v1/best-of", {"model": "tiny", "messages": HELLO})
        assert best.json()["error"]["code"] == "no_judge"
        assert httpx2.get(f"{address}/v1/nothing").json()["error"]["code"] == "unknown_url"
        assert httpx2.get(f"{address}/v1/judge").json()["error"]["code"] == "method_not_allowed"


# together


def test_requests_run_together_and_give_what_they_give_alone(address, client, tiny, adapters):
    def ask(k: int) -> str:
        model = ("tiny", "x", "y")[k % 3]
        found = client.chat.completions.create(
            model=model, messages=HELLO, seed=k, temperature=1.5, max_tokens=5 + k
        )
        return found.choices[0].message.content

    with ThreadPoolExecutor(9) as pool:
        together = list(pool.map(ask, range(9)))

    alone = [
        expected(tiny, adapters, ("", "x", "y")[k % 3], Sampling(1.5, 0.9, 1.2, 5 + k, k)).text
        for k in range(9)
    ]
    assert together == alone
    page = httpx2.get(f"{address}/metrics", headers={"authorization": f"Bearer {KEY}"}).text
    assert 'litee_requests_total{route="/v1/chat/completions",status="200"}' in page
    assert "litee_tokens_total" in page
    assert "litee_answers_waiting 0.0" in page


def test_the_judge_takes_what_waits_in_one_go(tiny):
    slow = Letters(0.1)
    with running(tiny_service(tiny("llama"), judge=slow)) as address:
        pair = {"prompt": "q", "response_a": "longer", "response_b": "short"}

        def ask(k: int) -> int:
            pairs = [{**pair, "id": str(k)}] * (k + 1)
            data = post(address, "/v1/judge", {"pairs": pairs}).json()["data"]
            assert {one["id"] for one in data} == {str(k)}
            return len(data)

        with ThreadPoolExecutor(12) as pool:
            assert list(pool.map(ask, range(12))) == list(range(1, 13))
        assert sum(slow.calls) == 78
        assert len(slow.calls) < 8


def test_a_bug_in_the_judge_hits_only_the_request_that_has_it(tiny, caplog):
    slow = Letters(0.05)
    with running(tiny_service(tiny("llama"), judge=slow)) as address:

        def ask(answer: str) -> int:
            pair = {"prompt": "q", "response_a": answer, "response_b": "b"}
            return post(address, "/v1/judge", pair).status_code

        with ThreadPoolExecutor(6) as pool:
            found = list(pool.map(ask, ["a", "boom", "a", "a", "boom", "a"]))
        assert found == [200, 500, 200, 200, 500, 200]


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_place(tiny, monkeypatch, stream):
    service = tiny_service(tiny("llama"), max_new_tokens=400, max_batch=1)
    engine = service.engine._writer._engine
    step, cancel = engine.step, engine.cancel
    written, freed = threading.Event(), threading.Event()

    def once():  # one token, then an answer that never ends
        if written.is_set():
            time.sleep(0.002)
            return []
        found = step()
        if found:
            assert not found[0].finish_reason
            written.set()
        return found

    def cancelling(key):
        cancel(key)
        freed.set()

    monkeypatch.setattr(engine, "step", once)
    monkeypatch.setattr(engine, "cancel", cancelling)
    with running(service) as address:
        body = {"model": "tiny", "messages": HELLO, "stream": stream, "seed": 1}
        data = json.dumps(body).encode()
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        port = int(address.rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
            client.sendall(head.encode() + data)
            assert written.wait(30)
            assert not freed.is_set()
        assert freed.wait(30)
        health = httpx2.get(f"{address}/health").json()
        assert (health["writing"], health["waiting"], health["status"]) == (0, 0, "ok")


def test_a_failing_model_fails_its_requests_and_not_the_server(tiny, monkeypatch, caplog):
    service = tiny_service(tiny("llama"))
    with running(service) as address:
        engine = service.engine._writer._engine
        step, broken = engine.step, threading.Event()
        broken.set()

        def sometimes():
            if broken.is_set():
                broken.clear()
                raise RuntimeError("out of memory")
            return step()

        monkeypatch.setattr(engine, "step", sometimes)
        body = {"model": "tiny", "messages": HELLO}
        # the idle worker steps once before it sleeps, so wait until it has failed
        codes = [post(address, "/v1/chat/completions", body).status_code for _ in range(3)]
        assert codes[-1] == 200
        assert set(codes) <= {200, 500}
