"""Who may do what: bearer tokens, held as hashes, each with rights (core/rights.py)."""

from collections.abc import Iterable

from tierce.core.errors import Forbidden, Unauthenticated
from tierce.core.rights import Right, Token, hash_token


class Access:
    """Checks a request's credentials. ``anonymous`` are the rights of a caller without a token."""

    def __init__(self, tokens: Iterable[Token], anonymous: frozenset[Right]) -> None:
        # Looked up by hash: what the time of a look-up could tell is of no use to a guesser.
        self._tokens = {token.sha256: token for token in tokens}
        self._anonymous = anonymous

    def check(self, authorization: str | None, right: Right) -> None:
        """Let a request pass, or raise Unauthenticated or Forbidden.

        ``authorization`` is the value of the header of that name (RFC 6750, section 2.1).
        """
        if right in self._anonymous:
            return
        if authorization is None:
            raise Unauthenticated(
                f"this needs a token with the right to {right}",
                hint="Send it as Authorization: Bearer TOKEN; `tierce token new` makes one.",
            )
        scheme, _, text = authorization.partition(" ")
        token = self._tokens.get(hash_token(text.strip())) if scheme.lower() == "bearer" else None
        if token is None:
            raise Unauthenticated(
                "the token is not known here",
                hint="Send Authorization: Bearer TOKEN, with a token from this node's settings.",
            )
        if right not in token.rights:
            raise Forbidden(
                f"the token {token.name} has no right to {right}",
                hint=f"Use a token that has the right {right}.",
            )
