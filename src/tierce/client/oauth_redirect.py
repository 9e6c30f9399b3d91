"""The end of the browser's way on this machine: a server on the loopback interface, for one answer.

RFC 8252, section 7.3. Anybody on this machine can ask it, so what is not the answer to our request, by
its ``state``, is turned away and waited out.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from tierce.client.oauth import Authorization
from tierce.core.errors import TierceError, Unavailable

WAIT_SECONDS = 600.0
_PAGE = "<!doctype html><meta charset=utf-8><title>Tierce</title><p>{}"


class Redirect:
    """A server that waits for a browser, at ``url``. Made by :func:`redirect`."""

    def __init__(self) -> None:
        self.url = ""
        self._asked: Authorization | None = None
        self._code: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def wait(self, asked: Authorization, seconds: float = WAIT_SECONDS) -> str:
        """The code that the browser brings. Raises Refused if the user said no, Unavailable."""
        self._asked = asked
        try:
            return await asyncio.wait_for(self._code, seconds)
        except TimeoutError:
            raise Unavailable(
                f"no browser came within {seconds:.0f} s",
                hint="Run it again; with --paste if the browser is on another machine.",
            ) from None

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a browser, or whoever comes."""
        query = {name: request.query[name] for name in request.query}
        asked = self._asked
        if request.path != "/" or asked is None or not asked.is_answer(query):
            return web.Response(status=404, text="not found\n")
        text = "The command has its answer. You can close this page."
        if not self._code.done():
            try:
                self._code.set_result(asked.code_of(query))
            except TierceError as refused:
                self._code.set_exception(refused)
                text = "The command was told that access is not permitted."
        return web.Response(
            text=_PAGE.format(text),
            content_type="text/html",
            headers={"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"},
        )


@asynccontextmanager
async def redirect() -> AsyncIterator[Redirect]:
    """Serve at a free port of 127.0.0.1 while the block runs."""
    server = Redirect()
    runner = web.ServerRunner(web.Server(server.handle, access_log=None), shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        yield server
    finally:
        await runner.cleanup()


async def authorized(
    begin: Callable[[str], Authorization],
    show: Callable[[str], None],
    wait_seconds: float = WAIT_SECONDS,
) -> str:
    """Go through an authorization whose answer a browser on this machine brings: a refresh token.

    ``begin`` makes the request for a redirect URL, ``show`` tells the user its address. Raises as
    :meth:`Redirect.wait` and :meth:`Authorization.redeem`.
    """
    async with redirect() as server:
        asked = begin(server.url)
        show(asked.address)
        code = await server.wait(asked, wait_seconds)
    return await asked.redeem(code)
