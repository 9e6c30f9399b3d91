"""Permission to use somebody's account at a storage service: OAuth 2.0, authorization code with PKCE.

The user opens an address in a browser and permits the app to go in; what the browser is given then, a
code, is exchanged for a refresh token (RFC 6749, section 4.1). The code is worth nothing without the
verifier, which stays in this process (RFC 7636), and an answer that belongs to another run has another
``state``. The app is the user's own. Both services take its secret beside the verifier; the token is
then of the kind that goes with the secret, as OpenDAL uses it. That is tried here, too, so that a node
does not fail later of what can be said now.

No error and no ``repr`` shows a secret, a code or a token, not even if the service repeats it.
"""

import base64
import hashlib
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import parse_qs, urlencode, urlsplit

import aiohttp
import msgspec

from tierce.core.errors import BadRequest, Forbidden, Refused, Unauthenticated, Unavailable
from tierce.core.wording import quoted

TIMEOUT_SECONDS = 30.0
ANSWER_LIMIT_BYTES = 64 * 1024
_VERIFIER_BYTES = 48  # 64 characters; RFC 7636 wants 43 to 128
_STATE_BYTES = 24
_HIDDEN = "[hidden]"


@dataclass(frozen=True, slots=True)
class Service:
    """A storage service: where it asks its users, where it gives tokens, and what we need there.

    ``name`` is OpenDAL's. ``scopes`` are the rights that a store needs; ``extra`` are parameters of
    this service's own, without which it gives no refresh token. ``apps`` is where users make apps.
    """

    name: str
    title: str
    authorize_url: str
    token_url: str
    scopes: tuple[str, ...]
    extra: Mapping[str, str]
    apps: str


DROPBOX = Service(
    name="dropbox",
    title="Dropbox",
    authorize_url="https://www.dropbox.com/oauth2/authorize",
    token_url="https://api.dropboxapi.com/oauth2/token",  # noqa: S106 (an address)
    scopes=("files.metadata.read", "files.content.read", "files.content.write"),
    extra=MappingProxyType({"token_access_type": "offline"}),
    apps="https://www.dropbox.com/developers/apps",
)
GDRIVE = Service(
    name="gdrive",
    title="Google Drive",
    authorize_url="https://accounts.google.com/o/oauth2/v2/auth",
    token_url="https://oauth2.googleapis.com/token",  # noqa: S106 (an address)
    # Files that this app made, and no others.
    scopes=("https://www.googleapis.com/auth/drive.file",),
    # Google gives a refresh token at the first consent only, so it is asked for each time.
    extra=MappingProxyType({"access_type": "offline", "prompt": "consent"}),
    apps="https://console.cloud.google.com/auth/clients",
)


@dataclass(frozen=True, slots=True)
class App:
    """A program as the service knows it. Dropbox calls the two app key and app secret."""

    client_id: str
    client_secret: str = field(repr=False)


class Authorization:
    """One request to a user. ``redirect_url`` is where the browser ends; empty: it shows the code."""

    def __init__(self, service: Service, app: App, redirect_url: str = "") -> None:
        self.service = service
        self.app = app
        self.redirect_url = redirect_url
        self.state = secrets.token_urlsafe(_STATE_BYTES)
        self._verifier = secrets.token_urlsafe(_VERIFIER_BYTES)

    @property
    def address(self) -> str:
        """What the user opens in a browser. It holds no secret."""
        challenge = hashlib.sha256(self._verifier.encode("ascii")).digest()
        asked = {
            "client_id": self.app.client_id,
            "response_type": "code",
            "scope": " ".join(self.service.scopes),
            "code_challenge": base64.urlsafe_b64encode(challenge).rstrip(b"=").decode("ascii"),
            "code_challenge_method": "S256",
            **self.service.extra,
        }
        if self.redirect_url:
            asked |= {"redirect_uri": self.redirect_url, "state": self.state}
        return f"{self.service.authorize_url}?{urlencode(asked)}"

    def is_answer(self, query: Mapping[str, str]) -> bool:
        """Whether the query of an address is the answer to this request, be it yes or no."""
        return secrets.compare_digest(
            query.get("state", "").encode("utf-8", "replace"), self.state.encode("ascii")
        )

    def code_of(self, query: Mapping[str, str]) -> str:
        """The code in the query of the address where the browser ended.

        Raises Refused if the user said no, BadRequest if it is no answer to this request.
        """
        if not self.is_answer(query):
            raise BadRequest(
                "that is not the answer to this request",
                hint="Open the address above, from this run, and copy the whole of where it ends.",
            )
        if "error" in query:
            raise _refusal(self.service, query["error"], query.get("error_description", ""))
        if not query.get("code"):
            raise BadRequest(f"{self.service.title} gave no code", hint="Run it again.")
        return query["code"]

    def code_in(self, address: str) -> str:
        """The code in a whole address, as the user copied it. Raises as :meth:`code_of`."""
        try:
            query = parse_qs(urlsplit(address.strip()).query)
        except ValueError:
            query = {}
        return self.code_of({name: values[0] for name, values in query.items()})

    async def redeem(self, code: str) -> str:
        """Exchange a code for a refresh token, and see that new access tokens come of it.

        Raises BadRequest for a code that is not taken, Unauthenticated for an unknown app or a wrong
        secret, Forbidden if rights are missing, Unavailable if the service can't be had.
        """
        code = code.strip()
        if not code:
            raise BadRequest("no code was given", hint="Run it again.")
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "code_verifier": self._verifier,
            "client_id": self.app.client_id,
            "client_secret": self.app.client_secret,
        }
        if self.redirect_url:
            form["redirect_uri"] = self.redirect_url
        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
        ) as session:
            grant = await _grant(session, self.service, form)
            _check_scopes(self.service, grant)
            if not grant.refresh_token:
                raise Unavailable(
                    f"{self.service.title} gave a token that will not last, and none to renew it",
                    hint="Withdraw the app's access in your account there, and run it again.",
                )
            form = {
                "grant_type": "refresh_token",
                "refresh_token": grant.refresh_token,
                "client_id": self.app.client_id,
                "client_secret": self.app.client_secret,
            }
            await _grant(session, self.service, form)
        return grant.refresh_token


class _Grant(msgspec.Struct, frozen=True):
    """A token response (RFC 6749, section 5.1). Without ``scope``, all that was asked for is granted."""

    access_token: str
    refresh_token: str = ""
    scope: str | None = None


class _Problem(msgspec.Struct, frozen=True):
    """An error response (RFC 6749, section 5.2)."""

    error: str
    error_description: str = ""


async def _grant(
    session: aiohttp.ClientSession, service: Service, form: Mapping[str, str]
) -> _Grant:
    """One request to the token endpoint."""
    status, body = await _post(session, service, form)
    if status == 200:
        try:
            grant = msgspec.json.decode(body, type=_Grant)
        except ValueError:
            raise _foreign(service, "its answer has no token in it") from None
        if not grant.access_token:
            raise _foreign(service, "its answer has no token in it")
        return grant
    if status == 429 or status >= 500:
        raise Unavailable(
            f"{service.title} answers {status}", hint="Wait a while, and run it again."
        )
    try:
        problem = msgspec.json.decode(body, type=_Problem)
    except ValueError:
        raise _foreign(service, f"it answers {status}") from None
    public = ("client_id", "grant_type", "redirect_uri")
    hidden = [value for name, value in form.items() if name not in public]
    raise _refusal(service, problem.error, problem.error_description, hidden)


async def _post(
    session: aiohttp.ClientSession, service: Service, form: Mapping[str, str]
) -> tuple[int, bytes]:
    """Send a form. What aiohttp's errors say is left out where it may repeat what was sent."""
    host = urlsplit(service.token_url).netloc
    try:
        async with session.post(service.token_url, data=form, allow_redirects=False) as response:
            body = bytearray()
            async for piece in response.content.iter_any():
                body += piece
                if len(body) > ANSWER_LIMIT_BYTES:
                    raise _foreign(service, "its answer doesn't end")
            return response.status, bytes(body)
    except TimeoutError:
        reason = "it took too long"
    except aiohttp.ClientSSLError:
        reason = "its certificate is not trusted"
    except aiohttp.ClientConnectorError as problem:
        # asyncio tells the failed call in place of the reason; failures to resolve have no errno.
        code = problem.os_error.errno or 0
        reason = os.strerror(code) if code > 0 else problem.os_error.strerror or "no connection"
    except aiohttp.ClientError as problem:
        reason = type(problem).__name__
    raise Unavailable(
        f"can't reach {host}: {reason}", hint="Check this machine's network, and run it again."
    )


def _check_scopes(service: Service, grant: _Grant) -> None:
    if grant.scope is None:
        return
    missing = sorted(set(service.scopes) - set(grant.scope.split()))
    if missing:
        raise Forbidden(
            f"{service.title} did not grant all rights: {', '.join(missing)} missing",
            hint=f"Permit them in the settings of the app ({service.apps}) and when you are"
            " asked, and run it again.",
        )


def _refusal(
    service: Service, error: str, description: str, hidden: Iterable[str] = ()
) -> Refused | BadRequest | Unavailable:
    """An error of RFC 6749, sections 4.1.2.1 and 5.2, as one of ours."""
    for each in hidden:
        error, description = error.replace(each, _HIDDEN), description.replace(each, _HIDDEN)
    said = quoted(f"{error}: {description}" if description else error)
    if error == "access_denied":
        return Forbidden(f"access was not permitted at {service.title}", hint="Run it again.")
    if error == "invalid_grant":
        return BadRequest(
            f"{service.title} does not take the code, or the token that it gave for it: {said}",
            hint="A code works once, for some minutes, and for this app: run it again.",
        )
    if error in ("invalid_client", "unauthorized_client"):
        return Unauthenticated(
            f"{service.title} does not know this app, or its secret is another: {said}",
            hint=f"Compare both with what stands at {service.apps}.",
        )
    if error == "invalid_scope":
        return Forbidden(
            f"{service.title} does not grant the rights: {said}",
            hint=f"The app needs {', '.join(service.scopes)}; see {service.apps}.",
        )
    if error in ("temporarily_unavailable", "server_error"):
        return Unavailable(f"{service.title} answers {said}", hint="Run it again in a while.")
    return BadRequest(
        f"{service.title} refuses: {said}", hint=f"Look at the app's settings at {service.apps}."
    )


def _foreign(service: Service, reason: str) -> Unavailable:
    host = urlsplit(service.token_url).netloc
    return Unavailable(
        f"{host} does not answer as {service.title} does: {reason}",
        hint="Something between here and there may answer in its place.",
    )
