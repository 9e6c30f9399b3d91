"""Which handler answers a method and path. A dictionary for fixed paths, then patterns in order.

aiohttp's own router asks for its Application, whose middle layers cost a quarter of a small
request (docs/decisions/0003-http-stack.md). A door has a dozen routes, and this is all they need.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

from aiohttp import web

from tierce.core.errors import BadRequest, NotFound

T = TypeVar("T")
Handler = Callable[..., Awaitable[web.StreamResponse]]


class NoSuchPath(NotFound):
    """No route has this path."""


class MethodNotAllowed(BadRequest):
    """A route has this path, for other methods. ``allowed`` is the value of the Allow header."""

    def __init__(self, method: str, allowed: str) -> None:
        super().__init__(f"the method {method[:20]!a} is not allowed here", hint=f"Use {allowed}.")
        self.allowed = allowed


class Route(NamedTuple):
    """A method, a path, its handler, and the label that its requests have in the metrics.

    A part ``{name}`` of the path matches up to the next slash, ``{name*}`` any rest; the handler
    gets it as keyword argument ``name``, unescaped. The method ``*`` takes all methods.
    """

    method: str
    path: str
    handler: Handler
    label: str = ""


class Match(NamedTuple):
    """A route found, and the parts of the path that it asked for."""

    route: Route
    arguments: dict[str, Any]


class Router:
    """Routes of one door. A GET route also answers HEAD, unless there is one of its own."""

    def __init__(self, routes: list[Route]) -> None:
        self._fixed: dict[str, dict[str, Match]] = {}
        self._patterns: list[tuple[re.Pattern[str], dict[str, Route]]] = []
        by_pattern: dict[str, dict[str, Route]] = {}
        for bare in routes:
            route = bare if bare.label else bare._replace(label=bare.path)
            if "{" in route.path:
                methods = by_pattern.setdefault(_pattern(route.path), {})
                methods[route.method] = route
            else:
                self._fixed.setdefault(route.path, {})[route.method] = Match(route, {})
        self._patterns = [(re.compile(text), methods) for text, methods in by_pattern.items()]

    def find(self, method: str, path: str) -> Match:
        """Raises NoSuchPath or MethodNotAllowed."""
        fixed = self._fixed.get(path)
        if fixed is not None:
            return _pick(fixed, method)
        for pattern, methods in self._patterns:
            match = pattern.fullmatch(path)
            if match is not None:
                return Match(_pick(methods, method), match.groupdict())
        raise NoSuchPath(
            f"{path[:200]!a} is not a path of this door", hint="See the documentation."
        )


def _pick(methods: dict[str, T], method: str) -> T:
    found = methods.get(method) or methods.get("*")
    if found is None and method == "HEAD":
        found = methods.get("GET")
    if found is None:
        allowed = sorted({*methods, *(["HEAD"] if "GET" in methods else [])})
        raise MethodNotAllowed(method, ", ".join(allowed))
    return found


def _pattern(path: str) -> str:
    parts = re.split(r"(\{\w+\*?\})", path)
    return "".join(_part(part) for part in parts)


def _part(part: str) -> str:
    if not part.startswith("{"):
        return re.escape(part)
    name = part[1:-1]
    return f"(?s:(?P<{name[:-1]}>.*))" if name.endswith("*") else f"(?P<{name}>[^/]+)"
