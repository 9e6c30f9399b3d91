"""The flags and variables of an objstore node, as Tierce's settings.

Names, rules and defaults are those of objstore. What Tierce's own variables and file set counts where
neither a flag nor a variable of objstore's does, and before objstore's defaults. Where Tierce does
otherwise on purpose, a note says so to the operator. Pure: the environment, and what is known of this
machine's addresses, are arguments. Values are checked by ``core/resolve.py`` where it can.
"""

import contextlib
import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence, Set
from typing import NamedTuple
from urllib.parse import quote, urlencode

from tierce.core import kinds
from tierce.core.errors import BadRequest
from tierce.core.listen import Listen
from tierce.core.resolve import Given
from tierce.core.wording import quoted
from tierce.doors.objstore.uploads import NAME
from tierce.node.sockets import WILDCARDS


class Flag(NamedTuple):
    """A flag, its variable (empty if it has none), its default, and what becomes of it."""

    flag: str
    environment: str
    default: str
    meaning: str


FLAGS: dict[str, Flag] = {
    "debug": Flag("-d, --debug", "APP_DEBUG_LEVEL", "0", "more than 0 logs each request"),
    "nodes": Flag("-N, --nodes", "APP_CLUSTER_NODES", "", "`join`; without a port, 11999"),
    "tag": Flag("-T, --tag", "APP_CLUSTER_TAGNAME", "default", "`cluster_tag`; `default` is none"),
    "private_addr": Flag("--private-addr", "NET_PRIVATE_ADDR", "0.0.0.0:11999", "`private`"),
    "debug_addr": Flag(
        "--debug-addr", "NET_DEBUG_ADDR", "", "`objstore_debug`, with a debug level above 0"
    ),
    "public_addr": Flag("--public-addr", "NET_PUBLIC_ADDR", "0.0.0.0:10999", "`listen`"),
    "state_dir": Flag("--state-dir", "APP_STATE_DIR", "state/", "`data`"),
    "files_dir": Flag("--files-dir", "APP_FILES_DIR", "files/", "`files`"),
    "region": Flag("-R, --region", "S3_REGION_NAME", "us-east-1", "region in `upstream`"),
    "bucket": Flag("-B, --bucket", "S3_BUCKET_NAME", "00-objstore-test", "bucket in `upstream`"),
    "endpoint": Flag("--endpoint", "S3_ENDPOINT", "", "endpoint in `upstream`, if it is not AWS"),
    "upstream": Flag("--upstream", "", "", "`upstream`, in place of a bucket of S3"),
    "no_upstream": Flag("--no-upstream", "", "", "no `upstream`: levels 1 and 2 are refused"),
}

PRIVATE_PORT = 11999
OPEN_RIGHTS = "read+write"
SOLO = "no additional cluster nodes specified, current node starts solo"
_S3 = ("bucket", "region", "endpoint")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}", re.ASCII)
_REGION = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)
_LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class _Sources:
    """Where values come from: the flags, then objstore's variables, of which empty ones count as none.

    ``elsewhere`` names the settings that Tierce's variables and file set.
    """

    def __init__(
        self,
        flags: Mapping[str, object],
        environ: Mapping[str, str],
        elsewhere: Set[str],
    ) -> None:
        self._flags = flags
        self._environ = environ
        self.elsewhere = elsewhere

    @property
    def has_secret(self) -> bool:
        return "cluster_secret" in self.elsewhere

    def is_flag(self, name: str) -> bool:
        return bool(self._flags.get(name))

    def text(self, name: str) -> Given | None:
        """The text that was given for a flag, trimmed; a list's parts with commas between them."""
        value = self._flags.get(name)
        if value:
            texts = [value] if isinstance(value, str) else value
            assert isinstance(texts, (list, tuple)), f"{name} is no text"
            return Given(",".join(texts).strip(), f"flag {FLAGS[name].flag.rpartition(' ')[2]}")
        variable = FLAGS[name].environment
        text = self._environ.get(variable, "").strip() if variable else ""
        return Given(text, f"environment {variable}") if text else None

    def or_default(self, name: str, setting: str) -> Given | None:
        """The same, or objstore's default; None where the setting is set elsewhere."""
        found = self.text(name)
        if found is None and setting not in self.elsewhere:
            return Given(FLAGS[name].default, "default of `tierce objstore`")
        return found


def from_objstore_environment(
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    elsewhere: Set[str],
    own_host: Callable[[Sequence[str]], str],
) -> tuple[dict[str, Given], list[str]]:
    """The flags for ``resolve`` or ``load_settings``, and notes for the operator.

    ``flags`` are those of FLAGS that were given; ``elsewhere`` names the settings that Tierce's own
    variables and file set. ``own_host(hosts)`` is this machine's address as those hosts, or if there
    are none, other machines would reach it. Raises BadRequest for what is malformed or at odds.
    """
    sources = _Sources(flags, environ, elsewhere)
    notes: list[str] = []
    settings = _directories(sources) | _debug(sources, notes) | _tag(sources)
    settings |= _upstream(sources, notes)
    settings |= _public(sources, notes)
    nodes = _nodes(sources)
    settings |= _private(sources, nodes, own_host, notes)
    if nodes is not None:
        settings["join"] = nodes
        notes.append(f"joining to cluster [{' '.join(_listed(nodes))}]")
    elif "join" not in elsewhere:
        notes.append(SOLO)
    return settings, notes


def _directories(sources: _Sources) -> dict[str, Given]:
    """Whoever names the data directory in Tierce's way has large blobs in it, unless told else."""
    found = {}
    data = sources.or_default("state_dir", "data")
    if data is not None:
        found["data"] = data
    files = sources.text("files_dir") if data is None else sources.or_default("files_dir", "files")
    if files is not None:
        found["files"] = files
    return found


def _debug(sources: _Sources, notes: list[str]) -> dict[str, Given]:
    given = sources.text("debug") or Given("0", "default")
    text = str(given.value)
    if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII):
        raise BadRequest(
            f"{given.origin}: {quoted(text)} is not a debug level", hint="Write 0 or 1."
        )
    address = sources.text("debug_addr")
    if int(text) == 0:
        if address is not None:
            notes.append(f"{address.origin} counts only with a debug level above 0, as -d 1.")
        return {}
    found = {"log_level": Given("debug", given.origin), "access_log": Given(True, given.origin)}
    if address is not None:
        found["objstore_debug"] = _debug_address(address, notes)
    return found


def _debug_address(given: Given, notes: list[str]) -> Given:
    """Where nothing is signed, only this machine may ask."""
    text = _with_host(str(given.value))
    try:
        listen = Listen.private(text)
    except BadRequest:
        return Given(text, given.origin)  # refused with its own words later
    if listen.host in WILDCARDS:
        listen = listen._replace(host=_LOOPBACK_OF[listen.host])
        notes.append(f"the debug address is {listen.address} only, for this machine.")
    if not _is_loopback(listen.host):
        raise BadRequest(
            f"{given.origin}: {text} can be reached from other machines",
            hint="Listen on 127.0.0.1; reach it from elsewhere by a tunnel, such as ssh -L.",
        )
    return Given(listen.address, given.origin)


def _tag(sources: _Sources) -> dict[str, Given]:
    tag = sources.text("tag")
    if tag is None:
        return {}
    is_default = tag.value == FLAGS["tag"].default
    return {"cluster_tag": Given("" if is_default else tag.value, tag.origin)}


def _public(sources: _Sources, notes: list[str]) -> dict[str, Given]:
    """Where the door listens. To all addresses, and open to everyone, as objstore does by default."""
    address = sources.or_default("public_addr", "listen")
    if address is None:
        return {}
    listen = f"{NAME}={_with_host(str(address.value))}"
    found = {"listen": Given([listen], address.origin)}
    if sources.elsewhere & {"tokens", "anonymous_rights"}:
        return found
    found["anonymous_rights"] = Given(OPEN_RIGHTS, "objstore, where everyone has them")
    with contextlib.suppress(BadRequest):  # a malformed one is refused with its own words later
        if not _is_loopback(Listen.parse(listen).host):
            notes.append(
                f"everyone who reaches {listen.partition('=')[2]} may read, put and delete, as in "
                "objstore; set TIERCE_TOKENS to ask for tokens."
            )
    return found


def _nodes(sources: _Sources) -> Given | None:
    given = sources.text("nodes")
    if given is None:
        return None
    nodes = [_with_port(each.strip()) for each in str(given.value).split(",") if each.strip()]
    return Given(list(dict.fromkeys(nodes)), given.origin) if nodes else None


def _private(
    sources: _Sources,
    nodes: Given | None,
    own_host: Callable[[Sequence[str]], str],
    notes: list[str],
) -> dict[str, Given]:
    """Where Tierce nodes talk to each other. Without a secret, only on this machine."""
    given = sources.or_default("private_addr", "private")
    if given is None:
        return {}
    text = _with_host(str(given.value))
    try:
        listen = Listen.private(text)
    except BadRequest:
        return {"private": Given(text, given.origin)}  # refused with its own words later
    if sources.has_secret:
        found = {"private": Given(text, given.origin)}
        if listen.host in WILDCARDS and "advertise" not in sources.elsewhere:
            told = listen._replace(host=own_host(_hosts(nodes))).address
            found["advertise"] = Given(told, "this machine's addresses")
            notes.append(
                f"other nodes are told to reach this one at {told}; set TIERCE_ADVERTISE if that "
                "is not right."
            )
        return found
    if listen.host in WILDCARDS:
        listen = listen._replace(host=_LOOPBACK_OF[listen.host])
        notes.append(
            f"TIERCE_CLUSTER_SECRET is not set, so the private address is {listen.address} only, "
            "for nodes on this machine; set it to the same text on all nodes."
        )
    elif not _is_loopback(listen.host):
        raise BadRequest(
            f"{given.origin}: {text} can be reached from other machines, and no cluster secret is "
            "set",
            hint="Set TIERCE_CLUSTER_SECRET to the same long random text on all nodes, or listen "
            "on 127.0.0.1.",
        )
    return {"private": Given(listen.address, given.origin)}


def _upstream(sources: _Sources, notes: list[str]) -> dict[str, Given]:
    """The bucket as a URL. Flags go before variables, whichever way they name the upstream."""
    named = [FLAGS[name].flag for name in _S3 if sources.is_flag(name)]
    given = sources.text("upstream")
    for name in ("no_upstream", "upstream"):
        if sources.is_flag(name) and named:
            raise BadRequest(
                f"{FLAGS[name].flag} goes together with no {named[0]}", hint="Keep one of the two."
            )
    if sources.is_flag("no_upstream"):
        if given is not None:
            raise BadRequest(
                "--no-upstream and --upstream are at odds", hint="Keep one of the two."
            )
        return {"upstream": Given("", "flag --no-upstream")}
    variables = {name: found for name in _S3 if (found := sources.text(name)) is not None}
    if given is not None:
        unused = [FLAGS[name].environment for name in variables]
        if unused:
            notes.append(f"{' and '.join(unused)}: not used, as --upstream is given.")
        return {"upstream": given}
    if not variables and "upstream" in sources.elsewhere:
        return {}
    if "bucket" not in variables:
        notes.append(
            f"no bucket is named, so it is {FLAGS['bucket'].default}, as in objstore; name yours "
            "by -B, or go without by --no-upstream."
        )
    origin = next((each.origin for each in variables.values()), "default of `tierce objstore`")
    return {"upstream": Given(_bucket_url(variables), origin)}


def _bucket_url(variables: Mapping[str, Given]) -> str:
    """``s3://BUCKET?region=REGION[&endpoint=URL]``. Raises BadRequest."""
    texts = {name: str(given.value) for name, given in variables.items()}
    bucket = texts.get("bucket", FLAGS["bucket"].default)
    query = {"region": texts.get("region", FLAGS["region"].default)}
    for name, value, form in (("bucket", bucket, _BUCKET), ("region", query["region"], _REGION)):
        if not form.fullmatch(value):
            raise BadRequest(
                f"{variables[name].origin}: {quoted(value)} is not the name of a {name}",
                hint="Write it as S3 has it, without a URL.",
            )
    if "endpoint" in texts:
        try:
            query["endpoint"] = kinds.base_url.parse(texts["endpoint"])
        except BadRequest as error:
            message = f"{variables['endpoint'].origin}: {error.message}"
            raise BadRequest(message, hint=error.hint) from None
    return f"s3://{quote(bucket)}?{urlencode(query)}"


def _with_host(address: str) -> str:
    """``:10999`` stands for all addresses."""
    return f"0.0.0.0{address}" if re.fullmatch(r":[0-9]*", address, re.ASCII) else address


def _with_port(node: str) -> str:
    """The address of a node, with objstore's port if it has none."""
    if "://" in node:
        return node
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(node).version == 6:
            return f"[{node}]:{PRIVATE_PORT}"
    has_port = ":" in node.rpartition("]")[2]
    return node if has_port else f"{node}:{PRIVATE_PORT}"


def _listed(nodes: Given) -> list[str]:
    assert isinstance(nodes.value, list)
    return [str(each) for each in nodes.value]


def _hosts(nodes: Given | None) -> list[str]:
    """The hosts of nodes on other machines. A malformed address is refused later."""
    hosts = []
    for node in _listed(nodes) if nodes is not None else []:
        with contextlib.suppress(BadRequest):
            hosts.append(Listen.private(node.partition("://")[2] or node).host)
    return [host for host in hosts if not _is_loopback(host)]


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False
