"""The page at ``/metrics``: counters of all processes, and gauges read as the page is made."""

import os
from collections.abc import Iterator

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
