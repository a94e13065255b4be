"""What the service counts and measures, in the words of Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """One service's own registry, so that several may live in one process."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "seqrec_requests", "requests answered", ("route", "method", "status"), registry=registry
        )
        self.seconds = Histogram(
            "seqrec_request_seconds", "from request to answer", ("route",), buckets=_SECONDS, registry=registry
        )
        self.in_flight = Gauge("seqrec_requests_in_flight", "requests that are being answered", registry=registry)
        self.batch = Histogram(
            "seqrec_batch_requests", "requests that a model answered together", buckets=_SIZES, registry=registry
        )
        self.append = Histogram(
            "seqrec_append_requests", "requests whose events were kept together", buckets=_SIZES, registry=registry
        )
        self.events = Counter("seqrec_events", "events acknowledged", registry=registry)
        self.waiting = Gauge("seqrec_requests_waiting", "requests that wait for a model", registry=registry)
        self.exchanges = Gauge(
            "seqrec_bundle_exchanges", "how often a newer bundle came", ("model",), registry=registry
        )
        self.loaded = Gauge(
            "seqrec_bundle_loaded_seconds", "when the bundle was read, since 1970", ("model",), registry=registry
        )

    def text(self) -> bytes:
        return generate_latest(self._registry)
