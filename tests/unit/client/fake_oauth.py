"""A stand-in for the authorization server of a storage service, made of dicts.

It holds to RFC 6749 and RFC 7636: a code works once, for the app and the redirect URL that it was made
for, and for whoever knows the verifier. Tests change what it grants, or what it answers.
"""

import asyncio
import base64
import hashlib
import json
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from urllib.parse import parse_qsl, urlencode

from aiohttp import web
from tests.unit.client.on_loopback import on_loopback

from tierce.client.oauth import App, Service
from tierce.testing.in_thread import held_in_thread

APP = App("app-key", "the-secret-of-the-app")
REFRESH_TOKEN = "1//refresh-token_that-lasts"
ACCESS_TOKEN = "sl.access-token"


class FakeOAuth:
    """What tests prepare and look at. ``url`` is there while it serves."""

    def __init__(self) -> None:
        self.url = ""
        self.forms: list[dict[str, str]] = []
        # What the user says, and which rights the app may have; None: does not tell, as all are had.
        self.permits = True
        self.granted: str | None = None
        self.gives_refresh_token = True
        # In place of the answer to the token request of that number.
        self.answers: dict[int, web.Response] = {}
        self.delay_seconds = 0.0
        self.has_revoked = False
        self._codes: dict[str, dict[str, str]] = {}

    def service(self, real: Service) -> Service:
        """A real service with the stand-in's addresses."""
        return replace(real, authorize_url=f"{self.url}/authorize", token_url=f"{self.url}/token")

    def forget_redirects(self) -> None:
        """Have the codes that were given be for another redirect URL."""
        for asked in self._codes.values():
            asked["redirect_uri"] = "http://127.0.0.1:1/"

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["FakeOAuth"]:
        """Serve on a free port of the running loop."""
        app = web.Application()
        app.router.add_get("/authorize", self._authorize)
        app.router.add_post("/token", self._token)
        async with on_loopback(app) as self.url:
            yield self

    @contextmanager
    def serving_in_thread(self) -> Iterator["FakeOAuth"]:
        """Serve from another thread, for code that runs a loop of its own."""
        with held_in_thread(self.serving):
            yield self

    async def _authorize(self, request: web.Request) -> web.Response:
        asked = dict(request.query)
        is_offline = asked.get("token_access_type") == "offline" or (
            asked.get("access_type") == "offline" and asked.get("prompt") == "consent"
        )
        is_right = (
            asked.get("client_id") == APP.client_id
            and asked.get("response_type") == "code"
            and asked.get("code_challenge_method") == "S256"
            and len(asked.get("code_challenge", "")) == 43
            and bool(asked.get("scope"))
        )
        if not is_right or not is_offline:
            return web.Response(status=400, text=f"bad request: {sorted(asked)}")
        code = f"4/code-{len(self._codes)}"
        answer = {"code": code} if self.permits else {"error": "access_denied"}
        self._codes[code] = asked
        if "redirect_uri" in asked:
            query = urlencode({**answer, "state": asked["state"]})
            raise web.HTTPFound(f"{asked['redirect_uri']}?{query}")
        return web.Response(text=answer.get("code", ""))

    async def _token(self, request: web.Request) -> web.Response:
        form = dict(parse_qsl(await request.text(), keep_blank_values=True))
        number = len(self.forms)
        self.forms.append(form)
        await asyncio.sleep(self.delay_seconds)
        if number in self.answers:
            return self.answers[number]
        if (form.get("client_id"), form.get("client_secret")) != (APP.client_id, APP.client_secret):
            return _problem(401, "invalid_client", "wrong key or secret")
        if form.get("grant_type") == "refresh_token":
            if form.get("refresh_token") != REFRESH_TOKEN or self.has_revoked:
                return _problem(400, "invalid_grant", "the refresh token is not known")
            return web.json_response({"access_token": ACCESS_TOKEN, "expires_in": 14400})
        asked = self._codes.pop(form.get("code", ""), None)
        if (
            form.get("grant_type") != "authorization_code"
            or asked is None
            or not _fits(form, asked)
        ):
            return _problem(400, "invalid_grant", "code doesn't exist or has expired")
        grant = {"access_token": ACCESS_TOKEN, "expires_in": 14400, "token_type": "bearer"}
        if self.gives_refresh_token:
            grant["refresh_token"] = REFRESH_TOKEN
        if self.granted is not None:
            grant["scope"] = self.granted
        return web.json_response(grant)


def code_shown_at(address: str) -> str:
    """Open an address as a browser would, and copy the code from the page."""
    with urllib.request.urlopen(address, timeout=10) as page:
        return str(page.read().decode())


def echo(form: Mapping[str, str]) -> web.Response:
    """An error that repeats what was sent."""
    return _problem(400, "invalid_request", json.dumps(dict(form)))


def _fits(form: Mapping[str, str], asked: Mapping[str, str]) -> bool:
    digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
    challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    return challenge == asked["code_challenge"] and (
        form.get("redirect_uri") == asked.get("redirect_uri")
    )


def _problem(status: int, error: str, description: str) -> web.Response:
    return web.json_response({"error": error, "error_description": description}, status=status)
