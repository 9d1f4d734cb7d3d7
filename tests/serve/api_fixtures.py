"""A server in this process, with a tiny model, two adapters and a judge that counts letters."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

import httpx2
import uvicorn

from litee.records import Prediction
from litee.serve.api import create_api
from litee.serve.api_service import Service
from litee.serve.api_settings import ServeSettings
from litee.serve.batching import JudgeWorker
from litee.serve.engines import TransformersEngine
from litee.serve.limits import Keys
from litee.serve.metrics import Metrics
from litee.serve.vote_server import listen


class Letters:
    """A judge: an answer's reward is its length; it may fail or take its time."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.calls: list[int] = []
        self.seconds = seconds

    def predict(self, pairs):
        self.calls.append(len(pairs))
        time.sleep(self.seconds)
        if any(p.response_a == ("boom",) for p in pairs):
            raise IndexError("a bug")
        found = []
        for pair in pairs:
            a, b = (float(sum(map(len, turns))) for turns in (pair.response_a, pair.response_b))
            odds = (0.6, 0.3, 0.1) if a > b else (0.3, 0.6, 0.1) if b > a else (0.25, 0.25, 0.5)
            found.append(Prediction(pair.id, odds, a, b))
        return found


def make_adapter(model: Path, folder: Path, seed: int) -> Path:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from litee.finetune.chat_model import known_warnings

    torch.manual_seed(seed)
    base = AutoModelForCausalLM.from_pretrained(model)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    with known_warnings():
        get_peft_model(base, config).save_pretrained(folder)
    return folder


def tiny_service(model: Path, adapters=None, *, judge=None, engine=None, **changes) -> Service:
    values = {"backbone": str(model), "threads": 1, "max_new_tokens": 12, "batch_wait_ms": 0}
    settings = ServeSettings(**{**values, "requests_per_minute": 0, **changes})
    metrics = Metrics()
    worker = None if judge is None else JudgeWorker(judge, metrics, wait=0)
    engine = engine or TransformersEngine(settings, adapters or {}, metrics, name="tiny")
    return Service(settings, engine, metrics, judge=worker, judge_name="letters")


@contextlib.contextmanager
def running(service: Service, keys=()):
    """Serve in a thread; yields the address."""
    sock = listen("127.0.0.1", 0)
    app = create_api(service, Keys(keys))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{sock.getsockname()[1]}"
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with contextlib.suppress(httpx2.HTTPError):
            if httpx2.get(f"{address}/health").is_success:
                break
        time.sleep(0.02)
    try:
        yield address
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        sock.close()
        assert not thread.is_alive()
