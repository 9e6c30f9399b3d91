"""The flags of SOS's programs become settings, and nothing is open or kept by accident."""

from pathlib import Path

import pytest

from tierce.core.errors import BadRequest
from tierce.core.resolve import Given, resolve
from tierce.core.rights import Right
from tierce.core.settings import Settings
from tierce.doors.sos.environment import (
    API_SERVER,
    BLOB_SERVER,
    DOWNLOAD_SERVER,
    UPLOAD_SERVER,
    Program,
    Servers,
    common,
    gateway,
)

HOME = {"HOME": "/home/steve"}
STATE = "/home/steve/.local/state/tierce"
SERVERS = Servers(("default=http://a:1", "g=http://b:2"), "file ~/.sos.conf")


def settings(found: dict[str, Given]) -> Settings:
    return resolve(found, {}, {}, "", Path.read_text).settings


@pytest.mark.parametrize(
    ("program", "listen", "rights"),
    [
        (BLOB_SERVER, "sos-blob=0.0.0.0:3001", {Right.READ, Right.WRITE}),
        (UPLOAD_SERVER, "sos-upload=0.0.0.0:9991", {Right.WRITE}),
        (DOWNLOAD_SERVER, "sos-download=0.0.0.0:9992", {Right.READ}),
        (
            API_SERVER,
            "sos-upload=0.0.0.0:9991,sos-download=0.0.0.0:9992",
            {Right.READ, Right.WRITE},
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Program) else "",
)
def test_without_flags_it_is_as_in_sos(
    program: Program, listen: str, rights: frozenset[Right]
) -> None:
    flags, notes = common(program, None, {}, set())
    found = settings(flags)
    assert ",".join(map(str, found.listen)) == listen
    assert found.anonymous_rights == rights
    assert str(found.private) == "private=127.0.0.1:0"
    (note,) = notes
    assert note.startswith("everyone who reaches 0.0.0.0:")


@pytest.mark.parametrize(
    ("host", "listen", "is_told"),
    [
        ("127.0.0.1", "sos-blob=127.0.0.1:4040", False),
        ("localhost", "sos-blob=localhost:4040", False),
        ("::1", "sos-blob=[::1]:4040", False),
        ("10.0.0.5", "sos-blob=10.0.0.5:4040", True),
        (None, "sos-blob=0.0.0.0:4040", True),
    ],
)
def test_who_may_reach_it_is_told(host: str | None, listen: str, is_told: bool) -> None:
    flags, notes = common(BLOB_SERVER, host, {"sos-blob": "4040"}, set())
    assert [str(each) for each in settings(flags).listen] == [listen]
    assert bool(notes) is is_told


def test_tokens_are_advised_where_all_who_come_can_send_them() -> None:
    for program, is_advised in ((BLOB_SERVER, False), (UPLOAD_SERVER, True)):
        _, (note,) = common(program, None, {}, set())
        assert ("TIERCE_TOKENS" in note) is is_advised


def test_tokens_of_tierce_close_the_doors() -> None:
    flags, notes = common(BLOB_SERVER, None, {}, {"tokens"})
    assert "anonymous_rights" not in flags
    assert notes == []


def test_what_is_set_elsewhere_counts_unless_a_flag_says_otherwise() -> None:
    flags, _ = common(BLOB_SERVER, None, {}, {"listen", "private"})
    assert flags == {}
    flags, _ = common(BLOB_SERVER, None, {"sos-blob": "1"}, {"listen", "private"})
    assert flags["listen"].origin == "flag --port"


@pytest.mark.parametrize("port", ["x", "-1", "65536", "٣"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    flags, _ = common(BLOB_SERVER, None, {"sos-blob": port}, set())
    with pytest.raises(BadRequest, match="from flag --port"):
        settings(flags)


@pytest.mark.parametrize(
    ("program", "ports", "environ", "data"),
    [
        (UPLOAD_SERVER, {}, HOME, f"{STATE}/sos-upload-9991"),
        (DOWNLOAD_SERVER, {"sos-download": "80"}, HOME, f"{STATE}/sos-download-80"),
        (API_SERVER, {}, {"XDG_STATE_HOME": "/state", **HOME}, "/state/tierce/sos-api-9991"),
        (UPLOAD_SERVER, {}, {"XDG_STATE_HOME": "no", **HOME}, f"{STATE}/sos-upload-9991"),
    ],
)  # fmt: skip
def test_bodies_on_their_way_have_a_place(
    program: Program, ports: dict[str, str | None], environ: dict[str, str], data: str
) -> None:
    flags = gateway(program, None, SERVERS, ports, environ, set())
    found = settings(flags)
    assert (str(found.data), found.sos_servers) == (data, SERVERS.texts)


def test_without_a_home_the_place_must_be_named() -> None:
    with pytest.raises(BadRequest, match="HOME"):
        gateway(UPLOAD_SERVER, None, SERVERS, {}, {}, set())
    assert gateway(UPLOAD_SERVER, "d", SERVERS, {}, {}, set())["data"].value == "d"


def test_without_servers_a_store_of_its_own_must_be_named() -> None:
    with pytest.raises(BadRequest, match="no blob servers") as refused:
        gateway(UPLOAD_SERVER, None, None, {}, HOME, set())
    for word in ("~/.sos.conf", "/etc/sos.conf", "--blob-server", "--data"):
        assert word in refused.value.hint
    assert set(gateway(UPLOAD_SERVER, "d", None, {}, HOME, set())) == {"data"}
    assert gateway(UPLOAD_SERVER, None, None, {}, HOME, {"data"}) == {}
    assert set(gateway(UPLOAD_SERVER, None, None, {}, HOME, {"sos_servers"})) == {"data"}
