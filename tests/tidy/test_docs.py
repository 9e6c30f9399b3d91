"""The pages about the native door name all there is, and no link in the documentation is broken."""

import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Counter
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics import MetricWrapperBase

from tierce.blobs.space import Space
from tierce.blobs.store import Counts
from tierce.core import metrics
from tierce.core.digest import ALGORITHMS
from tierce.core.limits import HEADER_LINE_BYTES, HEADERS_COUNT, LIST_LIMIT_MAX, RANGES_COUNT
from tierce.doors.native.errors import NAMES, OUR_MISTAKE, STATUS
from tierce.doors.native.gauges import StatusGauges
from tierce.doors.native.routes import NativeDoor
from tierce.service.status import Identity, Status

ROOT = Path(__file__).parents[2]
API = (ROOT / "docs" / "native-api.md").read_text(encoding="utf-8")
METRICS = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

STATUS_OF_NOTHING = Status(
    Identity("", "", (), 1, 0.0), 0.0, Counts(0, 0), Space(0, 0, 0), "", None
)
PROBLEMS = {**{NAMES[kind]: status for kind, status in STATUS.items()}, OUR_MISTAKE: 500}


def routes() -> list[str]:
    unused: Any = None
    found = NativeDoor(unused, unused, unused, unused, unused).routes()
    return [f"{route.method} {route.path}" for route in found]


def documented_metrics() -> dict[str, tuple[str, list[str]]]:
    """Name, type and labels of each metric in the tables."""
    rows = re.findall(r"^\| `(tierce_\w+)` \| (\w+) \|([^|]*)\| [^|]+ \|$", METRICS, re.MULTILINE)
    return {name: (kind, re.findall(r"`(\w+)`", labels)) for name, kind, labels in rows}


def existing_metrics() -> dict[str, tuple[str, list[str]]]:
    found = {}
    for each in vars(metrics).values():
        if isinstance(each, MetricWrapperBase):
            (family,) = each.collect()
            name = family.name + ("_total" if isinstance(each, Counter) else "")
            found[name] = (family.type, list(each._labelnames))
    for family in StatusGauges(STATUS_OF_NOTHING).collect():
        assert isinstance(family, GaugeMetricFamily)
        found[family.name] = (family.type, list(family._labelnames))
    return found


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as they stand in links."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


def links(page: Path) -> list[str]:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    found = re.findall(r"\]\(<?([^)\s>]+)>?\)", text)
    return [link for link in found if not re.match(r"[a-z]+:", link)]


@pytest.mark.parametrize("route", routes())
def test_route_is_documented(route: str) -> None:
    assert f"`{route}`" in API


def test_no_route_is_documented_that_is_not_there() -> None:
    named = re.findall(r"`((?:GET|HEAD|PUT|POST|DELETE|PATCH|OPTIONS) /[^` ]*)`", API + METRICS)
    assert set(named) == set(routes())


def test_problem_types_are_documented_with_their_status() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d{3}) \| [^|]+ \| [^|]+ \|$", API, re.MULTILINE)
    assert {name: int(status) for name, status in rows} == PROBLEMS


def test_algorithms_are_documented_with_their_length() -> None:
    section = API.split("\n## Digests\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \|", section, re.MULTILINE)
    expected = {name: 2 * each.size_bytes for name, each in ALGORITHMS.items()}
    assert {name: int(digits) for name, digits in rows} == expected


def test_limits_are_documented() -> None:
    for text in (
        f"`limit` is 1 to {LIST_LIMIT_MAX}",
        f"more than {RANGES_COUNT} ranges",
        f"over {HEADER_LINE_BYTES} bytes, or there are over {HEADERS_COUNT} headers",
    ):
        assert text in API


def test_metrics_are_documented_with_their_type_and_labels() -> None:
    assert documented_metrics() == existing_metrics()


def test_alerts_are_on_metrics_that_there_are() -> None:
    suffixes = r"_(bucket|sum|count)$"
    named = {re.sub(suffixes, "", name) for name in re.findall(r"\btierce_\w+", METRICS)}
    assert named == set(existing_metrics())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        aim = (page.parent / path).resolve() if path else page
        assert aim.is_relative_to(ROOT), link
        assert aim.exists(), link
        if anchor:
            assert anchor in anchors(aim), link
