"""What the server counts, in Prometheus' format. Knows nothing of requests' contents."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

#: Seconds; answers on a CPU take a while.
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)

_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """Counters of one server, in a registry of their own.

    Attributes:
        requests: by route and status.
        seconds: by route, until the last byte.
        first_token: seconds until the first text of an answer.
        tokens: `prompt` or `written`.
        pairs: judged pairs.
        batches: size of what ran together, `judge` in pairs, `answers` in answers per step.
        under_way: requests under way.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.requests = Counter(
            "litee_requests",
            "Requests by route and status.",
            ("route", "status"),
            registry=registry,
        )
        self.seconds = Histogram(
            "litee_request_seconds",
            "Time of a request.",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.first_token = Histogram(
            "litee_first_token_seconds",
            "Time to the first text.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.tokens = Counter(
            "litee_tokens", "Tokens read and written.", ("kind",), registry=registry
        )
        self.pairs = Counter("litee_judged_pairs", "Pairs judged.", registry=registry)
        self.batches = Histogram(
            "litee_batch_size", "What ran together.", ("what",), buckets=_BATCHES, registry=registry
        )
        self.under_way = Gauge("litee_requests_under_way", "Requests under way.", registry=registry)

    def watch(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """Add a gauge that is read when it is asked for."""
        Gauge(name, meaning, registry=self.registry).set_function(value)

    def page(self) -> bytes:
        """The page of `/metrics`."""
        return generate_latest(self.registry)
