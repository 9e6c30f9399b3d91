"""The page at ``/metrics``: counters of all processes, and gauges read as the page is made."""

import os
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from tierce.core.tallies import hand_over_all
from tierce.service.status import Status


class StatusGauges(Collector):
    """What a status says, as gauges. docs/metrics.md explains each."""

    def __init__(self, now: Status) -> None:
        self._now = now

    def collect(self) -> Iterator[Metric]:
        now = self._now
        yield GaugeMetricFamily("tierce_blobs", "Blobs on this node.", now.counts.blobs)
        yield GaugeMetricFamily(
            "tierce_blob_bytes", "Bytes of blobs on this node.", now.counts.bytes
        )
        yield GaugeMetricFamily("tierce_disk_total_bytes", "Size of the disk.", now.space.total)
        yield GaugeMetricFamily("tierce_disk_free_bytes", "Free space on the disk.", now.space.free)
        yield GaugeMetricFamily(
            "tierce_disk_reserve_bytes", "Space that is kept free.", now.space.reserve
        )
        yield GaugeMetricFamily(
            "tierce_writable", "1 while the node takes new blobs.", not now.read_only_reason
        )
        yield GaugeMetricFamily(
            "tierce_uptime_seconds", "Time since the start.", now.uptime_seconds
        )
        yield GaugeMetricFamily(
            "tierce_agent_up", "1 while the agent answers.", now.agent is not None
        )
        agent = now.agent or {}
        yield from _healing_gauges(agent.get("healing") or {})
        yield _members_gauge(agent.get("members") or [])
        yield from _names_gauges(agent.get("names") or {})
        yield from _store_gauges(agent.get("store") or {})
        yield GaugeMetricFamily(
            "tierce_dtfc_deletes_waiting",
            "Orders to delete a file that peers of dtfc have not heard yet.",
            (agent.get("dtfc") or {}).get("deletes_waiting"),
        )


def _healing_gauges(healing: dict[str, Any]) -> Iterator[Metric]:
    """What the agent says of healing. What it does not say has no sample, rather than a false one."""
    blobs = GaugeMetricFamily(
        "tierce_heal_blobs", "Blobs that this node looks after.", labels=["state"]
    )
    for state in ("below_target", "at_target", "over_target"):
        if state in healing:
            blobs.add_metric([state], healing[state])
    yield blobs
    last_pass = healing.get("last_pass")
    for name, explanation, value in (
        ("tierce_heal_bytes_to_move", "Bytes to copy.", healing.get("bytes_to_move")),
        (
            "tierce_heal_estimated_seconds",
            "Time that healing will take.",
            healing.get("estimated_seconds"),
        ),
        (
            "tierce_heal_last_pass_timestamp_seconds",
            "End of the last full pass of healing.",
            last_pass and datetime.fromisoformat(last_pass).timestamp(),
        ),
    ):
        yield GaugeMetricFamily(name, explanation, value)


def _names_gauges(names: dict[str, Any]) -> Iterator[Metric]:
    """What the agent says of named objects."""
    counted = GaugeMetricFamily("tierce_names", "Names that this node knows.", labels=["kind"])
    for kind in ("objects", "tombstones", "damaged"):
        if kind in names:
            counted.add_metric([kind], names[kind])
    yield counted
    waiting = GaugeMetricFamily(
        "tierce_objects_waiting", "Objects that wait for background work.", labels=["for"]
    )
    for kind in ("copies", "uploads"):
        if f"{kind}_waiting" in names:
            waiting.add_metric([kind], names[f"{kind}_waiting"])
    yield waiting
    synced = (names.get("sync") or {}).get("caught_up")
    yield GaugeMetricFamily(
        "tierce_names_caught_up", "1 once all other nodes' changes were read.", synced
    )


def _store_gauges(store: dict[str, Any]) -> Iterator[Metric]:
    """What the agent says of the bucket that has the node's blobs, if one has."""
    circuit = store.get("circuit")
    yield GaugeMetricFamily(
        "tierce_store_circuit_open",
        "1 while the agent leaves the store alone.",
        None if circuit is None else circuit == "open",
    )
    month = store.get("scrub_month") or {}
    requests = GaugeMetricFamily(
        "tierce_store_scrub_month_requests",
        "Requests that the scrub of the store sends in 30 days.",
        labels=["kind"],
    )
    for kind in ("list", "look", "read"):
        if f"{kind}_requests" in month:
            requests.add_metric([kind], month[f"{kind}_requests"])
    yield requests
    yield GaugeMetricFamily(
        "tierce_store_scrub_month_bytes",
        "Bytes that the scrub of the store reads in 30 days.",
        month.get("read_bytes"),
    )
    yield GaugeMetricFamily(
        "tierce_store_cache_bytes",
        "Disk space that the store's cache takes.",
        (store.get("cache") or {}).get("bytes"),
    )


def _members_gauge(members: list[dict[str, Any]]) -> Metric:
    """Each state is there, if only with 0: an alert on a series that comes and goes misses."""
    gauge = GaugeMetricFamily("tierce_members", "Nodes of the cluster.", labels=["state"])
    if members:
        count = Counter(each["state"] for each in members)
        for state in ("alive", "suspect", "down"):
            gauge.add_metric([state], count[state])
    return gauge


def exposition(now: Status) -> tuple[bytes, str]:
    """The page and its content type."""
    hand_over_all()
    gauges = CollectorRegistry()
    gauges.register(StatusGauges(now))
    counters = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        counters = CollectorRegistry()
        MultiProcessCollector(counters)  # type: ignore[no-untyped-call]
    return generate_latest(gauges) + generate_latest(counters), CONTENT_TYPE_LATEST
