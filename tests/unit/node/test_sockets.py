"""An address belongs to one node, whoever of two was there a moment earlier."""

import socket

import pytest

from tierce.core.errors import BadRequest, Conflict
from tierce.core.listen import Listen
from tierce.node import sockets


def test_an_address_is_reserved_once_though_nobody_listens_yet() -> None:
    listen, held = sockets.reserve(Listen("native", "127.0.0.1", 0))
    with pytest.raises(Conflict, match=str(listen.port)):
        sockets.reserve(listen)
    for sock in held:
        sock.close()
    again, held = sockets.reserve(listen)
    assert again == listen
    for sock in held:
        sock.close()


def test_an_address_that_someone_listens_on_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as server:
        listen = Listen("cask", "127.0.0.1", server.getsockname()[1])
        with pytest.raises(Conflict) as caught:
            sockets.reserve(listen)
    assert "--listen" in caught.value.hint


def test_port_zero_becomes_a_real_one_that_workers_can_share() -> None:
    listen, held = sockets.reserve(Listen("native", "127.0.0.1", 0))
    (address,) = sockets.resolve(listen)
    workers = [sockets.bind(address, shared=True) for _ in range(2)]
    assert {sock.getsockname() for sock in workers} == {("127.0.0.1", listen.port)}
    for sock in (*workers, *held):
        sock.close()


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(BadRequest):
        sockets.reserve(Listen("native", "192.0.2.1", 7070))


def test_a_host_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*arguments: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(BadRequest, match="resolved"):
        sockets.reserve(Listen("native", "no-such-host.invalid", 7070))


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("0.0.0.0", False)],
)
def test_loopback_is_known(host: str, loopback: bool) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    assert sockets.is_loopback(sockets.Address(family, host, 1)) is loopback
