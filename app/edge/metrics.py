"""Metrics: what this process counts, as Prometheus text."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from app.edge.database import Database, Group

LATENCY_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 8)
GROUP_JOBS = (1, 2, 5, 10, 25, 50, 100, 250, 500)


class Metrics:
    """One registry for the process; children are remembered because a look-up costs more than a count."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._looks: list[Callable[[], None]] = []
        ProcessCollector(registry=self.registry)
        self._requests = Histogram(
            "litehouse_request_seconds",
            "Time from a request's first byte to its answer's last.",
            ("route", "method", "status"),
            buckets=LATENCY_SECONDS,
            registry=self.registry,
        )
        self._children: dict[tuple[str | None, str, int], Histogram] = {}
        self._group_jobs = Histogram(
            "litehouse_writer_group_jobs", "Jobs in one commit.", buckets=GROUP_JOBS, registry=self.registry
        )
        self._group_seconds = Histogram(
            "litehouse_writer_group_seconds",
            "Time from a group's first job to its commit.",
            buckets=LATENCY_SECONDS,
            registry=self.registry,
        )
        self._queue = Gauge(
            "litehouse_writer_queue_jobs", "Jobs accepted and not yet answered.", registry=self.registry
        )
        events = Counter("litehouse_usage_events", "Events posted to the ledger.", ("status",), registry=self.registry)
        self._event_counters = [events.labels(status) for status in ("accepted", "duplicate", "rejected")]
        self._refusals = Counter("litehouse_quota_refusals", "Reservations refused with 402.", registry=self.registry)

    def gauge(self, name: str, description: str, *labels: str) -> Gauge:
        """A gauge that somebody sets before it is collected."""
        return Gauge(name, description, labels, registry=self.registry)

    def before_collecting(self, look: Callable[[], None]) -> None:
        """Have `look` set its gauges each time that somebody collects. It must not wait for anything."""
        self._looks.append(look)

    def watch(self, db: Database) -> None:
        writer = db.writer
        if writer is not None:
            self._queue.set_function(lambda: writer.queued)

    def observe_request(self, route: str | None, method: str, status: int, seconds: float) -> None:
        key = (route, method, status)
        child = self._children.get(key)
        if child is None:
            # A path that no route knows shares one label: scanners must not grow the registry.
            child = self._children[key] = self._requests.labels(route or "none", method if route else "any", status)
        child.observe(seconds)

    def observe_group(self, group: Group) -> None:
        self._group_jobs.observe(group.jobs)
        self._group_seconds.observe(group.seconds)

    def count_events(self, accepted: int, duplicates: int, rejected: int) -> None:
        for counter, number in zip(self._event_counters, (accepted, duplicates, rejected), strict=True):
            if number:
                counter.inc(number)

    def count_quota_refusal(self) -> None:
        self._refusals.inc()

    def text(self) -> bytes:
        for look in self._looks:
            look()
        return generate_latest(self.registry)
