"""The settings of a Cask node, ``CASK_*`` variables, as Tierce's settings.

Names, rules and defaults are those of Cask's README, and of its program where the README is silent.
Where Tierce does otherwise on purpose, a note says so to the operator. Pure: the environment is an
argument. Values are checked here only where Cask's rules differ from Tierce's; the rest is done by
``core/resolve.py``, which names the CASK_* variable when it refuses one.
"""

import contextlib
import re
from collections.abc import Mapping
from urllib.parse import quote, urlencode, urlsplit

from tierce.core import kinds
from tierce.core.errors import BadRequest
from tierce.core.limits import WORKERS_MAX
from tierce.core.listen import PRIVATE, Listen
from tierce.core.resolve import KUBERNETES_HINT, Given, unknown_variable
from tierce.core.wording import did_you_mean, quoted

PREFIX = "CASK_"

# Every variable that is known, with what becomes of it.
CASK_NAMES: dict[str, str] = {
    "CASK_PORT": "port of the Cask door in `listen`; required",
    "CASK_BASE_URL": "`cask_base_url`",
    "CASK_UUID": "`node_id`; at least 8 characters",
    "CASK_WRITEABLE": "`read_only`, reversed; not set means read-only, as in Cask",
    "CASK_BACKEND": "`disk`, `s3`, `dropbox` or `gdrive`; disk if not set",
    "CASK_DISK_BACKEND_ROOT": "`data`",
    "CASK_NEIGHBORS": "`join`; base URLs, with commas between them",
    "CASK_REPLICATION": "`replication`; less than 1 becomes 1",
    "CASK_MAX_REPLICATION": "`max_replication`; raised to CASK_REPLICATION if lower",
    "CASK_CLUSTER_SECRET": "`cluster_secret`; the door listens beyond 127.0.0.1 only if it is set",
    "CASK_HEARTBEAT_INTERVAL": "`heartbeat_interval_seconds`",
    "CASK_AAE_INTERVAL": "`scrub_interval_seconds`; less than 1 becomes 5",
    "CASK_MAX_PROCS": "`workers`; less than 1 becomes auto",
    "CASK_READ_TIMEOUT": "`header_timeout_seconds`, 5 if not set; see CASK_WRITE_TIMEOUT",
    "CASK_WRITE_TIMEOUT": "the larger of the two timeouts is `progress_window_seconds`",
    "CASK_SSL_CERTIFICATE": "`tls_certificate`; CASK_BASE_URL must begin with https://",
    "CASK_SSL_CERT": "the same under the name that the Cask program read",
    "CASK_SSL_KEY": "`tls_key`",
    "CASK_MAX_UPLOAD_SIZE": "`blob_limit_bytes`",
    "CASK_KEEP_FREE": "`reserve_bytes`",
    "CASK_GOSSIP_PORT": "port of `private`, where Tierce nodes talk; a free one if not set",
    "CASK_S3_ACCESS_KEY": "`AWS_ACCESS_KEY_ID` of the bucket",
    "CASK_S3_SECRET_KEY": "`AWS_SECRET_ACCESS_KEY` of the bucket",
    "CASK_S3_BUCKET": "the bucket in `store`, with `store_layout` cask",
    "CASK_S3_ENDPOINT": "the endpoint in `store`; Amazon's if not set",
    "CASK_S3_REGION": "the region in `store`; as for AWS if not set",
    "CASK_DROPBOX_ACCESS_KEY": "the key of the app at Dropbox",
    "CASK_DROPBOX_SECRET_KEY": "the secret of the app at Dropbox",
    "CASK_DROPBOX_TOKEN": "a token of Dropbox that does not end; better is `tierce auth dropbox`",
}

NODE_ID_MIN_CHARACTERS = 8
READ_TIMEOUT_SECONDS = 5
WRITE_TIMEOUT_SECONDS = 20
# Nodes of one ring must agree on the points, and Cask's number is fixed.
RING_POINTS = 16

_BACKENDS = ("disk", "s3", "dropbox", "gdrive")
_ACCOUNTS = ("dropbox", "gdrive")
"""Backends in somebody's account, with a place of Tierce's choice in it."""
_PLACE = "tierce"
_SETTINGS_OF = {"s3": "CASK_S3_", "dropbox": "CASK_DROPBOX_"}
_S3_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}", re.ASCII)
_GO_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_GO_FALSE = ("0", "f", "F", "FALSE", "false", "False")
_GO_INTEGER = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)

# Variables whose text is taken as it is.
_PLAIN = {
    "CASK_BASE_URL": "cask_base_url",
    "CASK_UUID": "node_id",
    "CASK_DISK_BACKEND_ROOT": "data",
    "CASK_CLUSTER_SECRET": "cluster_secret",
    "CASK_SSL_CERTIFICATE": "tls_certificate",
    "CASK_SSL_CERT": "tls_certificate",
    "CASK_SSL_KEY": "tls_key",
}
# Integers, each with the least value that is passed on: what is lower becomes this.
_INTEGERS = {
    "CASK_REPLICATION": ("replication", 1),
    "CASK_MAX_REPLICATION": ("max_replication", 0),
    "CASK_HEARTBEAT_INTERVAL": ("heartbeat_interval_seconds", 0),
    "CASK_AAE_INTERVAL": ("scrub_interval_seconds", 0),
    "CASK_MAX_UPLOAD_SIZE": ("blob_limit_bytes", 0),
    "CASK_KEEP_FREE": ("reserve_bytes", 0),
}


_AAE_DEFAULT_SECONDS = 5


def from_cask_environment(environ: Mapping[str, str]) -> tuple[dict[str, Given], list[str]]:
    """The flags for ``resolve`` or ``load_settings``, and notes for the operator.

    Other variables than ``CASK_*`` are not looked at, and an empty one counts as not set. Raises
    BadRequest for one that is unknown, malformed or at odds with another.
    """
    cask = {name: text for name, text in environ.items() if name.startswith(PREFIX)}
    for name in sorted(cask):
        if name not in CASK_NAMES:
            raise unknown_variable(name, CASK_NAMES, PREFIX)
    secret = cask.get("CASK_CLUSTER_SECRET", "")
    cask = {name: text.strip() for name, text in cask.items() if text.strip()}
    if "CASK_CLUSTER_SECRET" in cask:
        cask["CASK_CLUSTER_SECRET"] = secret  # to the letter: other nodes compare it
    _check(cask)
    flags = {setting: _given(cask[name], name) for name, setting in _PLAIN.items() if name in cask}
    for name, (setting, least) in _INTEGERS.items():
        if name in cask:
            flags[setting] = _given(max(least, _integer(cask, name)), name)
    if "CASK_AAE_INTERVAL" in cask and _integer(cask, "CASK_AAE_INTERVAL") < 1:
        flags["scrub_interval_seconds"] = _given(_AAE_DEFAULT_SECONDS, "CASK_AAE_INTERVAL")
    if "CASK_NEIGHBORS" in cask:
        flags["join"] = _given(_neighbors(cask["CASK_NEIGHBORS"]), "CASK_NEIGHBORS")
    flags |= _store(cask)
    flags["ring_points"] = Given(RING_POINTS, "the ring of Cask")
    notes: list[str] = []
    flags["listen"] = _listen(cask, notes)
    flags |= _private(cask, notes)
    flags["read_only"] = _read_only(cask, notes)
    flags |= _workers(cask, notes) | _timeouts(cask, notes)
    notes += _notes_on_backend(cask, flags)
    return flags, notes


def s3_credentials(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables by which a bucket's credentials are found, from those that Cask had for them."""
    if environ.get("CASK_BACKEND", "").strip() != "s3":
        return {}
    names = {
        "CASK_S3_ACCESS_KEY": "AWS_ACCESS_KEY_ID",
        "CASK_S3_SECRET_KEY": "AWS_SECRET_ACCESS_KEY",
    }
    return {ours: environ[name].strip() for name, ours in names.items() if environ.get(name)}


def _store(cask: Mapping[str, str]) -> dict[str, Given]:
    """Where the blobs of a node with another backend than the disk are."""
    backend = cask.get("CASK_BACKEND", "disk")
    if backend in _ACCOUNTS:
        # One node, one place: the account may be that of several nodes.
        place = "/".join([_PLACE, *([quote(cask["CASK_UUID"])] if "CASK_UUID" in cask else [])])
        return {
            "store": _given(f"{backend}:///{place}", "CASK_BACKEND"),
            "store_layout": _given("tierce", "CASK_BACKEND"),
        }
    if backend != "s3":
        return {}
    bucket = cask.get("CASK_S3_BUCKET", "")
    if not _S3_BUCKET.fullmatch(bucket):
        raise BadRequest(
            f"CASK_S3_BUCKET={quoted(bucket)} is not a bucket",
            hint="CASK_BACKEND=s3 needs the name of the bucket that the blobs are in.",
        )
    options = {
        name: cask[variable]
        for name, variable in (("endpoint", "CASK_S3_ENDPOINT"), ("region", "CASK_S3_REGION"))
        if variable in cask
    }
    query = f"?{urlencode(options, safe=':/')}" if options else ""
    return {
        "store": _given(f"s3://{bucket}{query}", "CASK_S3_BUCKET"),
        "store_layout": _given("cask", "CASK_BACKEND"),
    }


def _notes_on_backend(cask: Mapping[str, str], flags: Mapping[str, Given]) -> list[str]:
    backend = cask.get("CASK_BACKEND", "disk")
    notes = [
        f"{name} is not used without CASK_BACKEND={other}."
        for other, prefix in _SETTINGS_OF.items()
        if other != backend
        for name in cask
        if name.startswith(prefix)
    ]
    if backend in _ACCOUNTS:
        notes.append(
            f"The blobs are in {flags['store'].value}. What a Cask node has put into the account, "
            "below sha1/, is left as it is and not served."
        )
    return notes


def _given(value: object, name: str) -> Given:
    return Given(value, f"environment {name}")


def _integer(cask: Mapping[str, str], name: str) -> int:
    if not _GO_INTEGER.fullmatch(cask[name]):
        raise BadRequest(
            f"{name}={quoted(cask[name])} is not a whole number", hint="Write it in digits, alone."
        )
    return int(cask[name])


def _neighbors(text: str) -> list[str]:
    """Base URLs only: a HOST:PORT is a gossip address of a later Cask, which nothing here speaks to.

    Cask takes a neighbor that is named twice; a second mention says nothing new.
    """
    urls = [url.strip() for url in text.split(",") if url.strip()]
    try:
        return list(dict.fromkeys(map(kinds.base_url.parse, urls)))
    except BadRequest as error:
        raise BadRequest(f"CASK_NEIGHBORS: {error.message}", hint=error.hint) from None


def _check(cask: Mapping[str, str]) -> None:
    """Rules of Cask's that Tierce's own settings don't have."""
    backend = cask.get("CASK_BACKEND", "disk")
    if backend not in _BACKENDS:
        raise BadRequest(
            f"CASK_BACKEND={quoted(backend)} is not a backend",
            hint=did_you_mean(backend, _BACKENDS, "Write disk, s3, dropbox or gdrive."),
        )
    uuid = cask.get("CASK_UUID")
    if uuid is not None and len(uuid) < NODE_ID_MIN_CHARACTERS:
        raise BadRequest(
            f"CASK_UUID={quoted(uuid)} has fewer than {NODE_ID_MIN_CHARACTERS} characters",
            hint="Use a UUID, such as `uuidgen` prints; every node needs one of its own.",
        )
    _check_tls(cask)


def _check_tls(cask: Mapping[str, str]) -> None:
    names = [name for name in ("CASK_SSL_CERTIFICATE", "CASK_SSL_CERT") if name in cask]
    if len({cask[name] for name in names}) > 1:
        raise BadRequest(
            f"{names[0]} and {names[1]} name two different files", hint="Set one of the two."
        )
    if bool(names) != ("CASK_SSL_KEY" in cask):
        there, missing = ("CASK_SSL_KEY", "CASK_SSL_CERTIFICATE")
        if names:
            there, missing = names[0], there
        raise BadRequest(
            f"{there} is set without {missing}",
            hint="Set both for TLS, or neither for plain HTTP.",
        )
    base_url = cask.get("CASK_BASE_URL", "")
    is_https = base_url.lower().startswith("https://")
    if is_https and not names:
        raise BadRequest(
            f"CASK_BASE_URL={quoted(base_url)} is https, and no certificate is set",
            hint="Set CASK_SSL_CERTIFICATE and CASK_SSL_KEY, or write http://.",
        )
    if names and not is_https:
        raise BadRequest(
            f"{names[0]} is set, and CASK_BASE_URL={quoted(base_url)} is not https",
            hint="Write CASK_BASE_URL as in https://HOST:PORT.",
        )


def _listen(cask: Mapping[str, str], notes: list[str]) -> Given:
    if "CASK_PORT" not in cask:
        raise BadRequest("CASK_PORT is not set", hint="Set it to the port to listen on.")
    if "://" in cask["CASK_PORT"]:
        raise BadRequest(
            f"CASK_PORT={quoted(cask['CASK_PORT'])} is not a port", hint=KUBERNETES_HINT
        )
    port = _integer(cask, "CASK_PORT")
    host = "0.0.0.0"
    if "CASK_CLUSTER_SECRET" not in cask:
        host = "127.0.0.1"
        notes.append(
            "CASK_CLUSTER_SECRET is not set, so the node listens on 127.0.0.1 only, for this "
            "machine; set it to listen on all addresses."
        )
    return _given([f"cask={host}:{port}"], "CASK_PORT")


def _private(cask: Mapping[str, str], notes: list[str]) -> dict[str, Given]:
    """Where Tierce nodes talk to each other: beside the Cask door, on a port of its own.

    The host is that of CASK_BASE_URL, as other nodes see it. The port may be picked at each start,
    as they learn it through the Cask door.
    """
    name = "CASK_GOSSIP_PORT"
    port = _integer(cask, name) if name in cask else 0
    origin = f"environment {name}" if name in cask else f"default of {name}"
    host, flags = "127.0.0.1", {}
    if "CASK_CLUSTER_SECRET" in cask and "CASK_BASE_URL" in cask:
        # A malformed one is refused with its own words later.
        with contextlib.suppress(BadRequest):
            seen_as = urlsplit(kinds.base_url.parse(cask["CASK_BASE_URL"])).hostname or ""
            address = Listen(PRIVATE, seen_as, port).address
            host, flags["advertise"] = "0.0.0.0", Given(address, "environment CASK_BASE_URL")
    elif "CASK_NEIGHBORS" in cask:
        notes.append(
            "CASK_NEIGHBORS needs CASK_CLUSTER_SECRET, the same on all nodes, and CASK_BASE_URL, "
            "the address by which they reach this one."
        )
    flags["private"] = Given(f"{host}:{port}", origin)
    return flags


def _read_only(cask: Mapping[str, str], notes: list[str]) -> Given:
    text = cask.get("CASK_WRITEABLE")
    if text is None:
        notes.append(
            "CASK_WRITEABLE is not set, so the node is read-only, as in Cask; set it to true to "
            "take new blobs."
        )
        return Given(True, "CASK_WRITEABLE, which is not set")
    if text not in _GO_TRUE and text not in _GO_FALSE:
        raise BadRequest(
            f"CASK_WRITEABLE={quoted(text)} is neither true nor false",
            hint="Write true or false; 1, t, T, TRUE, True, 0, f, F, FALSE and False do as well.",
        )
    return _given(text in _GO_FALSE, "CASK_WRITEABLE")


def _workers(cask: Mapping[str, str], notes: list[str]) -> dict[str, Given]:
    if "CASK_MAX_PROCS" not in cask:
        return {}
    workers = _integer(cask, "CASK_MAX_PROCS")
    if workers > WORKERS_MAX:
        notes.append(f"CASK_MAX_PROCS is more than {WORKERS_MAX}, so {WORKERS_MAX} is used.")
    value = min(workers, WORKERS_MAX) if workers > 0 else "auto"
    return {"workers": _given(value, "CASK_MAX_PROCS")}


def _timeouts(cask: Mapping[str, str], notes: list[str]) -> dict[str, Given]:
    """Cask limits the total time of a request; Tierce its progress and the wait for its headers."""
    seconds = {"CASK_READ_TIMEOUT": READ_TIMEOUT_SECONDS}
    seconds["CASK_WRITE_TIMEOUT"] = WRITE_TIMEOUT_SECONDS
    given = [name for name in seconds if name in cask]
    for name in given:
        # In Go, none or less is no limit at all; Tierce always has one.
        seconds[name] = _integer(cask, name)
        if seconds[name] <= 0:
            notes.append(f"{name} is not above 0; Tierce keeps a limit, its default.")
    if given:
        notes.append(
            f"{' and '.join(given)}: Tierce limits progress, not total time, so transfers that "
            "are slow but steady go on."
        )
    flags = {}
    if seconds["CASK_READ_TIMEOUT"] > 0:
        flags["header_timeout_seconds"] = _timeout(cask, "CASK_READ_TIMEOUT", seconds)
    longest = max(seconds, key=lambda name: seconds[name])
    if seconds[longest] > 0:
        flags["progress_window_seconds"] = _timeout(cask, longest, seconds)
    return flags


def _timeout(cask: Mapping[str, str], name: str, seconds: Mapping[str, int]) -> Given:
    return Given(seconds[name], f"environment {name}" if name in cask else f"default of {name}")
