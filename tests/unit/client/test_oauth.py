"""Authorization at a storage service, with a stand-in that checks what it is sent."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from urllib.parse import parse_qs, quote, urlsplit

import aiohttp
import pytest
from aiohttp import web
from tests.unit.client.fake_oauth import APP, REFRESH_TOKEN, FakeOAuth, echo

from tierce.client import oauth
from tierce.client.oauth import DROPBOX, GDRIVE, App, Authorization, Service
from tierce.client.oauth_redirect import authorized, redirect
from tierce.core.errors import (
    BadRequest,
    Forbidden,
    TierceError,
    Unauthenticated,
    Unavailable,
)

REDIRECT_URL = "http://127.0.0.1:53682/"
READ = "files.metadata.read files.content.read"
LONG = b'{"access_token": "' + b"a" * oauth.ANSWER_LIMIT_BYTES + b'"}'


@pytest.fixture
async def server() -> AsyncIterator[FakeOAuth]:
    async with FakeOAuth().serving() as server:
        yield server


async def opened(address: str) -> tuple[str, str]:
    """What a browser that goes to an address shows, and the address where it ends."""
    async with aiohttp.ClientSession() as browser, browser.get(address) as page:
        return await page.text(), str(page.url)


async def ended(address: str) -> str:
    """The address to which a browser is sent, that can't go there."""
    async with (
        aiohttp.ClientSession() as browser,
        browser.get(address, allow_redirects=False) as page,
    ):
        return page.headers["Location"]


async def asked(server: FakeOAuth, app: App = APP) -> tuple[Authorization, str]:
    """A request to a user of Dropbox, and the code that it brought."""
    asked = Authorization(server.service(DROPBOX), app)
    code, _ = await opened(asked.address)
    return asked, code


async def failure(server: FakeOAuth, app: App = APP) -> TierceError:
    """How it goes wrong."""
    request, code = await asked(server)
    request.app = app
    with pytest.raises(TierceError) as caught:
        await request.redeem(code)
    return caught.value


async def test_a_code_becomes_a_refresh_token(server: FakeOAuth) -> None:
    request, code = await asked(server)
    assert await request.redeem(f" {code}\n") == REFRESH_TOKEN


async def test_the_token_is_tried_as_opendal_uses_it(server: FakeOAuth) -> None:
    request, code = await asked(server)
    await request.redeem(code)
    assert server.forms[1] == {
        "grant_type": "refresh_token",
        "refresh_token": REFRESH_TOKEN,
        "client_id": APP.client_id,
        "client_secret": APP.client_secret,
    }


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        (
            DROPBOX,
            {
                "token_access_type": ["offline"],
                "scope": ["files.metadata.read files.content.read files.content.write"],
            },
        ),
        (
            GDRIVE,
            {
                "access_type": ["offline"],
                "prompt": ["consent"],
                "scope": ["https://www.googleapis.com/auth/drive.file"],
            },
        ),
    ],
    ids=["dropbox", "gdrive"],
)
def test_the_address_asks_for_what_lasts(service: Service, expected: dict[str, list[str]]) -> None:
    address = Authorization(service, APP).address
    query = parse_qs(urlsplit(address).query)
    assert address.startswith(f"{service.authorize_url}?")
    assert expected.items() <= query.items()
    assert "state" not in query
    assert APP.client_secret not in address


def test_no_two_requests_are_alike() -> None:
    first, second = (Authorization(GDRIVE, APP, REDIRECT_URL) for _ in range(2))
    one, other = (parse_qs(urlsplit(each.address).query) for each in (first, second))
    assert one["state"] != other["state"]
    assert one["code_challenge"] != other["code_challenge"]


@pytest.mark.parametrize("code", ["another", "4/code-1"])
async def test_a_wrong_code_is_refused(server: FakeOAuth, code: str) -> None:
    request, _ = await asked(server)
    with pytest.raises(BadRequest, match="does not take the code") as caught:
        await request.redeem(code)
    assert "run it again" in caught.value.hint
    assert code not in caught.value.message


async def test_a_code_is_good_for_its_own_request_only(server: FakeOAuth) -> None:
    _, code = await asked(server)
    other, _ = await asked(server)
    with pytest.raises(BadRequest, match="invalid_grant"):
        await other.redeem(code)


async def test_a_code_works_once(server: FakeOAuth) -> None:
    request, code = await asked(server)
    await request.redeem(code)
    with pytest.raises(BadRequest, match="invalid_grant"):
        await request.redeem(code)


async def test_no_code_is_not_sent(server: FakeOAuth) -> None:
    request, _ = await asked(server)
    with pytest.raises(BadRequest, match="no code"):
        await request.redeem(" \n")
    assert server.forms == []


async def test_a_wrong_secret_is_told(server: FakeOAuth) -> None:
    error = await failure(server, replace(APP, client_secret="wrong"))
    assert isinstance(error, Unauthenticated)
    assert DROPBOX.apps in error.hint


async def test_missing_rights_are_named(server: FakeOAuth) -> None:
    server.granted = READ
    error = await failure(server)
    assert isinstance(error, Forbidden)
    assert "files.content.write missing" in error.message


async def test_all_rights_and_more_are_enough(server: FakeOAuth) -> None:
    server.granted = f"account_info.read files.content.write {READ}"
    request, code = await asked(server)
    assert await request.redeem(code) == REFRESH_TOKEN


async def test_a_refused_scope_is_told(server: FakeOAuth) -> None:
    server.answers[0] = web.json_response({"error": "invalid_scope"}, status=400)
    error = await failure(server)
    assert isinstance(error, Forbidden)
    assert "files.content.write" in error.hint


async def test_a_token_that_does_not_last_is_not_enough(server: FakeOAuth) -> None:
    server.gives_refresh_token = False
    assert "none to renew it" in (await failure(server)).message


async def test_a_refresh_token_that_gives_no_access_is_told(server: FakeOAuth) -> None:
    server.has_revoked = True
    error = await failure(server)
    assert isinstance(error, BadRequest)
    assert "the refresh token is not known" in error.message


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b""),
        (200, b"<html>Sign in to the network</html>"),
        (200, b"[]"),
        (200, b"{}"),
        (200, b'{"access_token": 5}'),
        (200, b'{"access_token": ""}'),
        (200, b'{"access_token": "a", "refresh_token": null}'),
        (200, b'{"access_token": "a\xff"}'),
        (200, LONG),
        (204, b""),
        (302, b""),
        (400, b"oops"),
        (404, b'{"message": "no such page"}'),
        (429, b""),
        (500, b"{}"),
        (503, b"<html>"),
    ],
    ids=range(16),
)
@pytest.mark.parametrize("number", [0, 1])
async def test_any_other_answer_is_unavailable(
    server: FakeOAuth, number: int, status: int, body: bytes
) -> None:
    server.answers[number] = web.Response(status=status, body=body, headers={"Location": "/other"})
    error = await failure(server)
    assert isinstance(error, Unavailable)
    assert error.hint


async def test_secrets_are_not_sent_on_to_another_address(server: FakeOAuth) -> None:
    server.answers[0] = web.Response(status=307, headers={"Location": f"{server.url}/token"})
    assert isinstance(await failure(server), Unavailable)
    assert len(server.forms) == 1


async def test_a_dead_network_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # not listening
        host = f"127.0.0.1:{taken.getsockname()[1]}"
        service = replace(DROPBOX, token_url=f"http://{host}/token")
        with pytest.raises(Unavailable) as caught:
            await Authorization(service, APP).redeem("the-code")
    assert caught.value.message == f"can't reach {host}: Connection refused"


async def test_a_server_that_does_not_answer_is_told(
    server: FakeOAuth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oauth, "TIMEOUT_SECONDS", 0.05)
    server.delay_seconds = 0.15
    error = await failure(server)
    assert isinstance(error, Unavailable)
    assert "too long" in error.message


@pytest.mark.parametrize("number", [0, 1])
async def test_what_the_service_repeats_is_not_shown(
    server: FakeOAuth, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    request, code = await asked(server)
    secrets = [APP.client_secret, code, REFRESH_TOKEN, request._verifier]
    server.answers[number] = echo(dict.fromkeys(secrets, "was sent") | {"client_id": APP.client_id})
    with pytest.raises(BadRequest, match="invalid_request") as caught:
        await request.redeem(code)
    sent = list(server.forms[number].values())
    for secret in secrets:
        assert secret not in caplog.text
        if secret in sent:
            assert secret not in f"{caught.value.message} {caught.value.hint}"
    assert "[hidden]" in caught.value.message


def test_no_repr_shows_a_secret() -> None:
    assert APP.client_secret not in repr(APP)
    assert APP.client_secret not in repr(Authorization(DROPBOX, APP))


async def test_a_browser_on_this_machine_brings_the_code(server: FakeOAuth) -> None:
    pages: list[asyncio.Task[tuple[str, str]]] = []
    token = await authorized(
        lambda url: Authorization(server.service(GDRIVE), APP, url),
        lambda address: pages.append(asyncio.create_task(opened(address))),
    )
    assert token == REFRESH_TOKEN
    page, _ = await pages[0]
    assert "You can close this page" in page


async def test_a_user_who_says_no(server: FakeOAuth) -> None:
    server.permits = False
    pages: list[asyncio.Task[tuple[str, str]]] = []
    with pytest.raises(Forbidden, match="not permitted at Google Drive"):
        await authorized(
            lambda url: Authorization(server.service(GDRIVE), APP, url),
            lambda address: pages.append(asyncio.create_task(opened(address))),
        )
    page, _ = await pages[0]
    assert "not permitted" in page
    assert server.forms == []


async def test_what_is_not_the_answer_is_waited_out(server: FakeOAuth) -> None:
    async with redirect() as here, aiohttp.ClientSession() as browser:
        request = Authorization(server.service(GDRIVE), APP, here.url)
        waiting = asyncio.create_task(here.wait(request))
        for stranger in (
            "favicon.ico",
            "",
            "?code=theirs",
            "?code=theirs&state=theirs",
            "?error=access_denied&state=%ff",
            f"other?code=theirs&state={request.state}",
        ):
            async with browser.get(f"{here.url}{stranger}") as page:
                assert page.status == 404, stranger
        assert not waiting.done()
        await opened(request.address)
        code = await waiting
    assert await request.redeem(code) == REFRESH_TOKEN


async def test_nobody_comes() -> None:
    with pytest.raises(Unavailable, match="no browser came") as caught:
        await authorized(
            lambda url: Authorization(GDRIVE, APP, url), lambda _: None, wait_seconds=0.05
        )
    assert "--paste" in caught.value.hint


async def test_the_address_of_another_machines_browser_is_enough(server: FakeOAuth) -> None:
    request = Authorization(server.service(GDRIVE), APP, REDIRECT_URL)
    end = await ended(request.address)
    assert end.startswith(REDIRECT_URL)
    assert await request.redeem(request.code_in(f"  {end}\n")) == REFRESH_TOKEN


async def test_a_code_is_for_its_redirect_url(server: FakeOAuth) -> None:
    request = Authorization(server.service(GDRIVE), APP, REDIRECT_URL)
    code = request.code_in(await ended(request.address))
    server.forget_redirects()
    with pytest.raises(BadRequest, match="invalid_grant"):
        await request.redeem(code)


async def test_an_address_of_another_run_is_refused(server: FakeOAuth) -> None:
    service = server.service(GDRIVE)
    request, other = (Authorization(service, APP, REDIRECT_URL) for _ in range(2))
    with pytest.raises(BadRequest, match="not the answer to this request"):
        request.code_in(await ended(other.address))


@pytest.mark.parametrize(
    "text", ["", "4/code-0", "http://[", "http://127.0.0.1:53682/?code=x", "?"]
)
def test_what_is_no_such_address_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="not the answer"):
        Authorization(GDRIVE, APP, REDIRECT_URL).code_in(text)


def test_codes_are_unescaped() -> None:
    request = Authorization(GDRIVE, APP, REDIRECT_URL)
    end = f"{REDIRECT_URL}?state={request.state}&code={quote('4/0A+b c', safe='')}&scope=x"
    assert request.code_in(end) == "4/0A+b c"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("access_denied", Forbidden),
        ("invalid_scope", Forbidden),
        ("unauthorized_client", Unauthenticated),
        ("server_error", Unavailable),
        ("temporarily_unavailable", Unavailable),
        ("something_new", BadRequest),
    ],
)
def test_errors_in_the_address_are_told(error: str, kind: type[TierceError]) -> None:
    request = Authorization(GDRIVE, APP, REDIRECT_URL)
    with pytest.raises(kind):
        request.code_in(f"{REDIRECT_URL}?state={request.state}&error={error}")


def test_an_answer_without_a_code_is_refused() -> None:
    request = Authorization(GDRIVE, APP, REDIRECT_URL)
    with pytest.raises(BadRequest, match="gave no code"):
        request.code_in(f"{REDIRECT_URL}?state={request.state}")
