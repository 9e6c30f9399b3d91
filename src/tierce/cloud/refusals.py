"""Credentials that a service does not take, or not any more: how OpenDAL 0.47 tells it, and what to do.

It has no kind of error for that. Most services answer 401, which it calls Unexpected; S3 answers 400 or
403 with a code. Where tokens are renewed with a refresh token, a revoked one is an answer of the token's
URL, and at Dropbox merely one that has no access token in it. Pure.
"""

import re
from typing import NamedTuple

_SERVICE = re.compile(r"^ +service: ([a-z0-9-]+)", re.MULTILINE)
_STATUS = re.compile(r"\bstatus: (\d{3})")
_HEAD_OF_S3 = re.compile(r"\bservice_operation: HeadObject\b")
_NO_TOKEN = "missing field `access_token`"  # noqa: S105 - a piece of an error's text
_REFUSED = re.compile(
    r"ExpiredToken|InvalidToken|TokenRefreshRequired|InvalidAccessKeyId|InvalidClientTokenId"
    r"|SignatureDoesNotMatch|AuthenticationFailed|InvalidAuthenticationInfo"
    r"|InvalidAuthenticationToken|expired_access_token|invalid_access_token|invalid_grant"
    r"|invalid_client|unauthorized_client|missing_scope|access token is malformed"
)
_CLOCK = re.compile(r"RequestTimeTooSkewed|RequestExpired")
_BY_AUTH = ("dropbox", "gdrive")
"""Services whose credentials `tierce auth` gets."""


class Refusal(NamedTuple):
    """``reason``: what to say instead of OpenDAL's own words, empty if those will do."""

    reason: str
    hint: str


def refusal(text: str, store: bool) -> Refusal | None:
    """What an error's text says about credentials; None if nothing. ``store``: not the upstream's."""
    told, _, context = text.partition("\nContext:\n")
    found = _SERVICE.search(context)
    service = found[1] if found else ""
    if _CLOCK.search(told):
        return Refusal("", "Set this machine's clock: the service compares it with its own.")
    if "missing_scope" in told:
        again = "Tick the app's permissions at the service (docs/storage-credentials.md). "
        return Refusal("", again + _remedy(service, store))
    if _NO_TOKEN in text:
        return Refusal(
            "the service gave no access token for the refresh token", _remedy(service, store)
        )
    status = _STATUS.search(context)
    number = status[1] if status else ""
    if number == "401" or _REFUSED.search(told):
        return Refusal("", _remedy(service, store))
    if number == "400" and _HEAD_OF_S3.search(context):
        # Without a body: S3 says so of expired keys, and of a wrong region.
        return Refusal("HTTP status 400", "Check the region. " + _remedy(service, store))
    return None


def _remedy(service: str, store: bool) -> str:
    if service in _BY_AUTH and store:
        return (
            f"Run `tierce auth {service}` with the node's --data, or set a new token in the "
            "environment if it stands there; then start the node again."
        )
    if service == "s3":
        return (
            "Set new keys in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN, if "
            "they have one), or renew the profile or the role; then start the node again."
        )
    name = f"OPENDAL_{service}_".upper().replace("-", "_") if service else "OPENDAL_"
    return f"Set new credentials in the variables {name}..., then start the node again."
