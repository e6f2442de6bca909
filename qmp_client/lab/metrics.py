"""What an agent does, for Prometheus. Off unless the configuration names an address.

What is in the store is read from it when somebody asks, so it survives the agent; the rest begins with the agent.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from qmp_client.errors import UsageError
from qmp_client.lab.observer import Observer
from qmp_client.lab.wire import Outcome, Result

SECONDS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800)
"""Bounds of the histogram of how long jobs take."""


class Metrics(Observer):
    """Counts, and answers Prometheus in a thread of its own."""

    def __init__(self, listen: str, store: Path) -> None:
        """``listen`` is ``ADDRESS:PORT``. Raises UsageError when nobody can listen there."""
        registry = CollectorRegistry()
        self._jobs = Counter("tdx_cpuid_jobs", "Jobs that ended since the agent began.", ["outcome"], registry=registry)
        for outcome in Outcome:
            self._jobs.labels(outcome.value)  # so that 0 is there to be compared with
        self._drift = Counter("tdx_cpuid_drift_events", "Changes of what guests see.", registry=registry)
        self._seconds = Histogram(
            "tdx_cpuid_job_seconds", "From a job's start to its report.", buckets=SECONDS, registry=registry
        )
        self._running = Gauge("tdx_cpuid_jobs_running", "Jobs that run now.", registry=registry)
        self._connected = Gauge("tdx_cpuid_broker_connected", "1 while the broker is there.", registry=registry)
        registry.register(Stored(store))
        address, _, port = listen.rpartition(":")
        try:
            self._server, _ = start_http_server(int(port), address.strip("[]"), registry)
        except (OSError, OverflowError) as error:
            raise UsageError(f"`metrics.listen`: nobody can listen on {listen}: {error}") from error

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_port)

    def ended(self, result: Result, *, drifted: bool) -> None:
        """Count it."""
        self._jobs.labels(result.outcome.value).inc()
        self._seconds.observe(result.seconds)
        self._drift.inc(drifted)

    def began(self, running: int) -> None:
        """Show it."""
        self._running.set(running)

    def connected(self, is_connected: bool) -> None:
        """Show it."""
        self._connected.set(is_connected)


class Stored:
    """Counts that are in the store, read by a connection of their own."""

    def __init__(self, store: Path) -> None:
        self._store = store

    def collect(self) -> Iterator[Metric]:
        """Read them; called by whichever thread answers."""
        with closing(sqlite3.connect(f"file:{self._store}?mode=ro", uri=True)) as db:
            # Old ones are forgotten, but their numbers are not used again.
            accepted, rejected, unfinished, unsent = db.execute(
                "SELECT (SELECT seq FROM sqlite_sequence WHERE name = 'jobs'),"
                " (SELECT seq FROM sqlite_sequence WHERE name = 'rejections'),"
                " (SELECT COUNT(*) FROM jobs) - (SELECT COUNT(*) FROM results),"
                " (SELECT COUNT(*) FROM outbox WHERE NOT taken)"
            ).fetchone()
        yield CounterMetricFamily("tdx_cpuid_jobs_accepted", "Jobs that were ever accepted.", accepted or 0)
        yield CounterMetricFamily("tdx_cpuid_jobs_rejected", "Payloads that were ever rejected.", rejected or 0)
        yield GaugeMetricFamily("tdx_cpuid_jobs_unfinished", "Accepted jobs without a result.", unfinished)
        yield GaugeMetricFamily("tdx_cpuid_outbox", "Messages that the broker has not taken yet.", unsent)
