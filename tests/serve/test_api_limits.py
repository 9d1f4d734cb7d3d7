"""What may come in: keys, sizes, rates, numbers, names; engines elsewhere; the server's end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import openai
import pytest
from api_fixtures import Letters, running, tiny_service
from hypothesis import given, settings
from hypothesis import strategies as st

from litee.errors import ConfigError, InputError, ModelError, ResourceError
from litee.serve.api_server import make_service, serve_api
from litee.serve.api_settings import ServeSettings
from litee.serve.engines_remote import EndpointEngine, VllmEngine, vllm_command
from litee.serve.limits import Keys, check_exposure, read_keys

KEY = "a-secret-of-many-characters"
PAIR = {"prompt": "q", "response_a": "x", "response_b": "yy"}
HELLO = [{"role": "user", "content": "Hello"}]


def refused(response, status, code):
    assert response.status_code == status
    assert response.json()["error"]["code"] == code
    return response


# the gate


def test_large_bodies_are_refused_announced_or_not(tiny):
    service = tiny_service(tiny("llama"), judge=Letters(), max_body=2000)
    with running(service) as address:
        body = json.dumps({**PAIR, "prompt": "q" * 3000}).encode()
        headers = {"content-type": "application/json"}
        url = f"{address}/v1/judge"

        def chunks():
            for start in range(0, len(body), 500):
                yield body[start : start + 500]

        refused(httpx2.post(url, content=body, headers=headers), 413, "request_too_large")
        refused(httpx2.post(url, content=chunks(), headers=headers), 413, "request_too_large")
        small = json.dumps(PAIR).encode()
        assert httpx2.post(url, content=small, headers=headers).status_code == 200
        wrong = httpx2.post(url, content=small, headers={"content-type": "text/plain"})
        assert wrong.status_code == 400


def test_too_many_requests_in_a_minute(tiny):
    service = tiny_service(tiny("llama"), judge=Letters(), requests_per_minute=6)
    with running(service, [KEY, KEY + "2"]) as address:
        url = f"{address}/v1/judge"

        def codes(key):
            headers = {"authorization": f"Bearer {key}"}
            return [httpx2.post(url, json=PAIR, headers=headers).status_code for _ in range(14)]

        assert codes(KEY).count(429) >= 2
        assert codes(KEY + "2")[:8] == [200] * 8  # another key has a rate of its own
        late = httpx2.post(url, json=PAIR, headers={"authorization": f"Bearer {KEY}"})
        assert refused(late, 429, "rate_limit_exceeded").headers["retry-after"] == "1"
        guesses = [httpx2.post(url, json=PAIR).status_code for _ in range(14)]
        assert guesses[0] == 401
        assert guesses[-1] == 429


def test_too_many_at_once_are_told_to_come_back(tiny):
    service = tiny_service(tiny("llama"), judge=Letters(0.4), max_requests=2)
    with running(service) as address:
        with ThreadPoolExecutor(6) as pool:
            found = list(
                pool.map(lambda _: httpx2.post(f"{address}/v1/judge", json=PAIR), range(6))
            )
        assert sorted({r.status_code for r in found}) == [200, 429]
        busy = next(r for r in found if r.status_code == 429)
        refused(busy, 429, "busy")
        assert busy.json()["error"]["type"] == "rate_limit_error"
        assert httpx2.post(f"{address}/v1/judge", json=PAIR).status_code == 200


def test_without_keys_only_this_machines_names_are_known(tiny):
    with running(tiny_service(tiny("llama"), judge=Letters())) as address:
        found = httpx2.get(f"{address}/v1/models", headers={"host": "evil.example"})
        refused(found, 421, "wrong_host")
        port = address.rsplit(":", 1)[1]
        ok = httpx2.get(f"{address}/v1/models", headers={"host": f"localhost:{port}"})
        assert ok.status_code == 200
        assert ok.headers["x-content-type-options"] == "nosniff"


VISIBLE = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)


@given(st.lists(VISIBLE, max_size=4), VISIBLE)
@settings(max_examples=60, deadline=None)
def test_only_the_keys_let_in(keys, other):
    found = Keys(keys)
    assert bool(found) == bool(keys)
    for key in keys:
        assert found.holder(f"Bearer {key}") is not None
    assert (found.holder(f"Bearer {other}") is not None) == (other in keys)
    assert not any(key in repr(found) for key in keys if len(key) > 4)


def test_keys_are_read_from_file_and_environment(tmp_path):
    file = tmp_path / "keys.txt"
    file.write_text(f"# ours\n{KEY}\n\n  {KEY}2  \n")
    keys = read_keys(file, {"LITEE_API_KEYS": f"{KEY}3, {KEY}4,"})
    assert all(keys.holder(f"bearer {KEY}{k}") for k in ("", 2, 3, 4))
    assert keys.holder(f"Basic {KEY}") is None
    assert not read_keys(None, {})
    file.write_text("short")
    with pytest.raises(InputError, match="5 characters") as caught:
        read_keys(file, {})
    assert "short" not in str(caught.value)
    file.write_text("# nothing\n")
    with pytest.raises(InputError, match="no key"):
        read_keys(file, {})
    with pytest.raises(InputError, match="cannot read"):
        read_keys(tmp_path / "none", {})


def test_other_machines_need_keys():
    with pytest.raises(ConfigError, match="there are no keys"):
        check_exposure(ServeSettings(host="0.0.0.0"), Keys([]))
    check_exposure(ServeSettings(host="0.0.0.0"), Keys([KEY]))
    check_exposure(ServeSettings(), Keys([]))
    with pytest.raises(ConfigError, match="there are no keys"):
        serve_api(ServeSettings(host="0.0.0.0"), Keys([]), ready=print)


# engines elsewhere


def test_an_endpoint_answers_as_the_server_behind_it(tiny):
    with running(tiny_service(tiny("llama")), [KEY]) as behind:
        engine = EndpointEngine(f"{behind}/v1", KEY)
        front = tiny_service(tiny("llama"), judge=Letters(), engine=engine)
        with running(front) as address:
            asked = {"model": "tiny", "messages": HELLO, "seed": 4, "temperature": 1.2}
            with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
                assert [m.id for m in client.models.list()] == ["tiny"]
                through = client.chat.completions.create(**asked)
                streamed = "".join(
                    c.choices[0].delta.content or ""
                    for c in client.chat.completions.create(**asked, stream=True)
                )
                with pytest.raises(openai.BadRequestError, match="the model takes"):
                    long = [{"role": "user", "content": "a" * 2000}]
                    client.chat.completions.create(model="tiny", messages=long)
            with openai.OpenAI(base_url=f"{behind}/v1", api_key=KEY) as client:
                direct = client.chat.completions.create(**asked)
            best = httpx2.post(f"{address}/v1/best-of", json={**asked, "n": 3}).json()
    text = direct.choices[0].message.content
    assert through.choices[0].message.content == streamed == text
    assert through.usage == direct.usage
    assert best["n"] == 3


def test_an_endpoint_that_is_gone_is_a_clear_error(tiny):
    engine = EndpointEngine("http://127.0.0.1:9/v1", "a-key-that-nobody-may-see")
    with running(tiny_service(tiny("llama"), engine=engine)) as address:
        found = httpx2.get(f"{address}/v1/models")
    assert found.status_code == 500
    assert "does not answer" in found.json()["error"]["message"]
    assert "a-key-that" not in found.text


def test_vllm_is_started_or_missed_by_name(tiny, tmp_path, monkeypatch):
    with pytest.raises(ModelError, match="vllm is not installed"):
        VllmEngine(ServeSettings(engine="vllm"), {})
    own = ServeSettings(engine="vllm", backbone=str(tiny("llama")), dtype="bfloat16")
    command = vllm_command(own, {"x": tmp_path}, port=7, name="tiny")
    assert command[1:3] == ["-m", "vllm.entrypoints.openai.api_server"]
    assert f"x={tmp_path}" in command
    assert command[command.index("--served-model-name") + 1] == "tiny"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr(
        "litee.serve.engines_remote.vllm_command", lambda *a, **k: [sys.executable, "-c", "1"]
    )
    with pytest.raises(ModelError, match="did not start"):
        VllmEngine(own, {})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"engine": "endpoint"}, "needs endpoint"),
        ({"endpoint": "http://x/v1"}, "use --engine endpoint"),
        ({"engine": "gpt"}, "engine"),
        ({"port": 70000}, "port"),
    ],
)
def test_settings_that_contradict_each_other(values, said):
    with pytest.raises(ValueError, match=said):
        ServeSettings(**values)


def test_services_with_nothing_to_serve(tiny, tmp_path):
    with pytest.raises(ConfigError, match="nothing to serve"):
        make_service(ServeSettings(engine="none"))
    remote = ServeSettings(engine="endpoint", endpoint="http://127.0.0.1:9/v1")
    with pytest.raises(ConfigError, match="takes no adapters"):
        make_service(remote, adapters={"x": tmp_path})
    own = ServeSettings(backbone=str(tiny("llama")), threads=1)
    with pytest.raises(InputError, match="give it another name"):
        make_service(own, adapters={"tiny": tmp_path}, name="tiny")


# the end


SERVER = """
import sys
from litee.cli import main
sys.argv = ["litee", "serve", "--model", sys.argv[1], "--name", "tiny", "--threads", "1"]
main()
"""


def test_sigterm_lets_answers_end_and_takes_no_new_ones(tiny):
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(tiny("llama"))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        line = process.stdout.readline()
        assert "serving at http://127.0.0.1:" in line, process.stderr.read()
        address = line.split("serving at ")[1].split("/v1")[0]
        body = {"model": "tiny", "messages": HELLO, "stream": True, "temperature": 1.5}
        body |= {"max_tokens": 300, "seed": 2}
        lines = []
        with httpx2.stream("POST", f"{address}/v1/chat/completions", json=body) as response:
            rest = response.iter_lines()
            lines.append(next(rest))
            process.send_signal(signal.SIGTERM)
            time.sleep(0.1)
            lines += list(rest)
        assert [text for text in lines if text][-1] == "data: [DONE]"
        with pytest.raises(httpx2.HTTPError):
            httpx2.get(f"{address}/health")
        assert process.wait(timeout=20) == 0
        assert process.stderr.read() == ""
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def test_requests_at_the_end_fail_clearly(tiny):
    import asyncio

    service = tiny_service(tiny("llama"), judge=Letters())
    asyncio.run(service.close())
    with pytest.raises(ResourceError, match="stopping"):
        service.judge.submit([]).result(timeout=5)
    assert service.health().status == "stopping"
    assert not [t for t in threading.enumerate() if t.name in ("litee-judge", "litee-writer")]
