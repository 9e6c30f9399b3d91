# ruff: noqa: RUF009  (setting.py says more than dataclasses.field)
"""What an operator may set: each declared once, with its kind, default and help.

From the fields of :class:`Settings` come the flags, the environment names, the keys of the TOML
file, ``tierce config`` and the check of the documentation. ``core/resolve.py`` puts the sources
together, and checks there what settings must agree on among each other, as it knows their origins.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from tierce.core import kinds, limits
from tierce.core.listen import PRIVATE, Listen
from tierce.core.rights import ALL_RIGHTS, Right, Token
from tierce.core.setting import ENVIRONMENT_PREFIX, Setting, settings_of
from tierce.core.setting import declared as _setting

__all__ = ["ENVIRONMENT_PREFIX", "SETTINGS", "Listen", "Right", "Setting", "Settings", "Token"]
__all__ += ["from_json", "shown", "to_json"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings in force. Names end in their unit where they have one."""

    data: Path = _setting(
        Path("data"), kinds.path, "Directory that holds everything the node stores."
    )
    node_id: str = _setting(
        "",
        kinds.node_id,
        "Id of the node, unique in its cluster; made at the first start if not set.",
    )
    listen: tuple[Listen, ...] = _setting(
        (Listen("native", "127.0.0.1", 7070),),
        kinds.listed(kinds.listen, at_least=1),
        "Where a door listens; port 0 picks a free one.",
    )
    workers: int = _setting(
        lambda: min(kinds.cpu_count(), limits.WORKERS_MAX),
        kinds.or_auto(
            kinds.whole(1, limits.WORKERS_MAX),
            lambda: min(kinds.cpu_count(), limits.WORKERS_MAX),
        ),
        "Number of worker processes; auto is one for each processor.",
        default_text="auto",
    )
    read_only: bool = _setting(
        False,
        kinds.switch,
        "Serve blobs, but keep no new ones; in a cluster, uploads are passed to other nodes.",
    )
    blob_limit_bytes: int = _setting(
        limits.BLOB_LIMIT_BYTES, kinds.size(1), "Largest blob that is taken, in bytes."
    )
    pack_limit_bytes: int = _setting(
        limits.PACK_LIMIT_BYTES,
        kinds.size(0, limits.PACK_LIMIT_MAX_BYTES),
        "Largest blob that is packed with others rather than kept in its own file, in bytes.",
    )
    reserve_bytes: int | None = _setting(
        None,
        kinds.or_auto(kinds.optional(kinds.size()), lambda: None, "auto"),
        "Disk space kept free, in bytes; auto is "
        f"{limits.RESERVE_BYTES // limits.GIB} GiB or {limits.RESERVE_PERCENT} % of the disk, "
        "whichever is smaller.",
    )
    min_progress_bytes_per_second: int = _setting(
        limits.MIN_PROGRESS_BYTES_PER_SECOND,
        kinds.size(),
        "Slowest transfer that is put up with, in bytes per second; 0 puts up with any.",
    )
    progress_window_seconds: float = _setting(
        limits.PROGRESS_WINDOW_SECONDS,
        kinds.duration(),
        "Time over which the speed of a transfer is judged, in seconds.",
    )
    header_timeout_seconds: float = _setting(
        limits.HEADER_TIMEOUT_SECONDS,
        kinds.duration(),
        "Longest wait for the headers of a request, in seconds.",
    )
    idle_timeout_seconds: float = _setting(
        limits.IDLE_TIMEOUT_SECONDS,
        kinds.duration(),
        "How long a connection is kept open between requests, in seconds.",
    )
    drain_timeout_seconds: float = _setting(
        limits.DRAIN_TIMEOUT_SECONDS,
        kinds.duration(0),
        "How long running requests may take to end when the node stops, in seconds.",
    )
    access_log: bool = _setting(False, kinds.switch, "Log every request.")
    log_format: Literal["text", "json"] = _setting(
        "text", kinds.choice("text", "json"), "Form of the log: lines for people, or JSON."
    )
    log_level: Literal["debug", "info", "warning", "error"] = _setting(
        "info", kinds.choice("debug", "info", "warning", "error"), "Least level that is logged."
    )
    tls_certificate: Path | None = _setting(
        None,
        kinds.optional(kinds.path),
        "PEM file with the certificate chain; with it, all doors speak TLS.",
    )
    tls_key: Path | None = _setting(
        None, kinds.optional(kinds.path), "PEM file with the key of the certificate."
    )
    tokens: tuple[Token, ...] = _setting(
        (),
        kinds.listed(kinds.token),
        "Tokens that are accepted, each with its name, its rights and its hash.",
        secret=True,
        is_flag=False,
    )
    anonymous_rights: frozenset[Right] | None = _setting(
        None,
        kinds.anonymous_rights,
        "Rights without a token; auto is all when no token is set, and none when some are.",
    )
    requests_per_second: float = _setting(
        0.0,
        kinds.number(0.0, 1e9),
        "Most requests a second from one address, by all public doors; 0 is no limit.",
    )
    token_requests_per_second: float = _setting(
        0.0,
        kinds.number(0.0, 1e9),
        "Most requests a second with one token, by all public doors; 0 is no limit.",
    )
    trusted_proxies: tuple[str, ...] = _setting(
        (),
        kinds.listed(kinds.network),
        "Network of proxies whose X-Forwarded-For tells the address of a client, as in 10.0.0.0/8.",
    )
    private: Listen = _setting(
        Listen(PRIVATE, "127.0.0.1", 7071),
        kinds.private,
        "Where other nodes of the cluster reach this one; port 0 picks a free one.",
    )
    advertise: str = _setting(
        "",
        kinds.peer_or_empty,
        "Address that other nodes are told in place of `private`; port 0 means that of `private`.",
    )
    join: tuple[str, ...] = _setting(
        (),
        kinds.listed(kinds.peer),
        "Private address of a node of the cluster to join, or the base URL of its Cask door.",
    )
    discover: bool = _setting(
        False,
        kinds.switch,
        "Find other nodes on the local network by multicast DNS, and join them.",
    )
    replication: int = _setting(
        0,
        kinds.or_auto(kinds.whole(1, limits.REPLICATION_MAX), lambda: 0, "auto"),
        "Number of nodes that keep each blob; auto is one for each node, up to "
        f"{limits.REPLICATION_AUTO_MAX}.",
    )
    max_replication: int = _setting(
        0,
        kinds.or_auto(kinds.whole(0), lambda: 0, "auto"),
        "Number of copies above which surplus ones are removed; auto, or less, is replication.",
    )
    zone: str = _setting(
        "",
        kinds.word,
        "Name of the zone (rack, room, site) that may fail as one; copies are spread over zones.",
    )
    weight: float = _setting(
        1.0,
        kinds.number(limits.WEIGHT_MIN, limits.WEIGHT_MAX),
        "Share of the blobs that this node takes, beside a node of weight 1: 0.05 to 100.",
    )
    ring_points: int = _setting(
        limits.RING_POINTS,
        kinds.whole(1, limits.RING_POINTS_MAX),
        "Points on the ring of a node of weight 1, 1 to 4096; the same on all nodes.",
    )
    down_grace_seconds: float = _setting(
        limits.DOWN_GRACE_SECONDS,
        kinds.duration(0),
        "How long a node may be down before its blobs are copied elsewhere, in seconds.",
    )
    heal_bytes_per_second: int = _setting(
        limits.HEAL_BYTES_PER_SECOND,
        kinds.size(),
        "Speed at which healing copies blobs to other nodes, in bytes per second; 0 is no limit.",
    )
    cask_base_url: str = _setting(
        "",
        kinds.base_url_or_empty,
        "Address of the Cask door for other nodes; made from its listen address if not set.",
    )
    cluster_secret: str = _setting(
        "",
        kinds.secret,
        "Secret that all nodes of a cluster share.",
        default_text="",
        secret=True,
        is_flag=False,
        in_file=False,
    )
    cluster_secret_file: Path | None = _setting(
        None, kinds.optional(kinds.path), "File that holds the cluster secret, and nothing else."
    )
    heartbeat_interval_seconds: float = _setting(
        60.0,
        kinds.duration(1, else_seconds=60.0),
        "Time between two heartbeats, in seconds; less than 1 becomes 60.",
    )
    files: Path | None = _setting(
        None,
        kinds.optional(kinds.path),
        "Directory for blobs that have a file each; files/ in the data directory if not set.",
    )
    store: str = _setting(
        "",
        kinds.store_or_empty,
        "Bucket that keeps the node's blobs in place of its disk, as in s3://BUCKET/PREFIX.",
    )
    store_credentials_file: Path | None = _setting(
        None,
        kinds.optional(kinds.path),
        "File with the store's credentials, in lines NAME=value; for its owner alone.",
    )
    store_layout: Literal["tierce", "cask"] = _setting(
        "tierce",
        kinds.choice("tierce", "cask"),
        "What blobs are called in the store; cask reads and writes the bucket of a Cask node.",
    )
    store_proof: Literal["auto", "read", "tags"] = _setting(
        "auto",
        kinds.choice("auto", "read", "tags"),
        "What proves a blob in the store: reading it, or an unchanged entity tag.",
    )
    store_cache_bytes: int = _setting(
        limits.STORE_CACHE_BYTES,
        kinds.size(),
        "Disk space for what was read lately from the store, in bytes; 0 is none.",
    )
    store_requests_per_second: float | None = _setting(
        None,
        kinds.or_auto(kinds.optional(kinds.number(0.0, 1e9)), lambda: None, "auto"),
        "Most requests a second that the node sends to the store; 0 is no limit, auto is "
        f"{limits.DRIVE_REQUESTS_PER_SECOND:g} for Dropbox, Google Drive, OneDrive and their like.",
    )
    store_background_requests_per_second: float = _setting(
        limits.STORE_BACKGROUND_REQUESTS_PER_SECOND,
        kinds.number(0.0, 1e9),
        "Most of those that are for healing, the scrub and comparing, a second; 0 is no limit.",
    )
    cluster_tag: str = _setting(
        "",
        kinds.word,
        "Name of the cluster; nodes of clusters with other names keep away from each other.",
    )
    collect_grace_seconds: float = _setting(
        limits.COLLECT_GRACE_SECONDS,
        kinds.duration(1),
        "How long the content of a deleted or replaced object is kept, in seconds.",
    )
    tombstone_days: float = _setting(
        limits.TOMBSTONE_DAYS,
        kinds.number(0.01, 36500.0),
        "How long the names of deleted objects are remembered, in days.",
    )
    upstream: str = _setting(
        "",
        kinds.upstream_or_empty,
        "Bucket behind the cluster, as in s3://BUCKET?region=REGION&endpoint=URL; none if not set.",
    )
    upstream_mode: Literal["through", "behind"] = _setting(
        "through",
        kinds.choice("through", "behind"),
        "Whether an upload is done when the upstream has it too, or before; it is queued then.",
    )
    cache_limit_bytes: int = _setting(
        0,
        kinds.size(),
        "Most that this node keeps of what the upstream has too, in bytes; 0 is no limit.",
    )
    objstore_debug: Listen | None = _setting(
        None,
        kinds.optional(kinds.private),
        "Where the private API of objstore is open to all of this machine, without a signature.",
    )
    sos_servers: tuple[str, ...] = _setting(
        (),
        kinds.listed(kinds.sos_server),
        "Blob server that the SOS upload and download doors use, as [GROUP=]URL; "
        "the cluster itself if not set.",
    )
    dtfc_peers: tuple[str, ...] = _setting(
        (),
        kinds.listed(kinds.base_url),
        "Peer from which the dtfc door loads what is not here, as in http://10.0.0.5:8080/.",
    )
    dtfc_peer_list: Path | None = _setting(
        None,
        kinds.optional(kinds.path),
        "File with the URL of a peer in each line; read again when it changes.",
    )
    dtfc_me: str = _setting(
        "",
        kinds.base_url_or_empty,
        "URL of this node among the peers, which is left out.",
    )
    dtfc_deny: str = _setting(
        "",
        kinds.prefix,
        "Path before put, get, head or delete to a file that, once it is there, forbids that method.",
    )
    dtfc_https_redirect: bool = _setting(
        False,
        kinds.switch,
        "Send who gets a file from the dtfc door by plain HTTP to https, as a proxy before it has it.",
    )
    scrub_interval_seconds: float = _setting(
        limits.SCRUB_INTERVAL_SECONDS,
        kinds.duration(0),
        "Pause between the background checks of two stored blobs, in seconds.",
    )
    scrub_bytes_per_second: int = _setting(
        limits.SCRUB_BYTES_PER_SECOND,
        kinds.size(1),
        "Speed at which stored blobs are checked in the background, in bytes per second.",
    )

    def __post_init__(self) -> None:
        if self.max_replication < self.replication:
            object.__setattr__(self, "max_replication", self.replication)

    @property
    def processes(self) -> int:
        """How many have the data directory open: the workers, and an agent beside several."""
        return 1 if self.workers == 1 else self.workers + 1

    @property
    def signing_secret(self) -> str:
        """What nodes sign with: other than the secret itself if the cluster has a tag."""
        return (
            f"{self.cluster_secret}/{self.cluster_tag}" if self.cluster_tag else self.cluster_secret
        )

    @property
    def anonymous_rights_in_force(self) -> frozenset[Right]:
        """What a caller without a token may do, with ``auto`` worked out."""
        if self.anonymous_rights is not None:
            return self.anonymous_rights
        return frozenset() if self.tokens else ALL_RIGHTS


SETTINGS: dict[str, Setting] = settings_of(Settings)


def shown(settings: Settings) -> dict[str, str]:
    """Every setting as text, with secrets masked. Empty text stands for what is not set."""
    return {name: setting.shown(getattr(settings, name)) for name, setting in SETTINGS.items()}


def to_json(settings: Settings) -> bytes:
    """All settings, the secret too, for :func:`from_json` in another process of this node."""
    return msgspec.json.encode(settings, enc_hook=str)


def from_json(data: bytes) -> Settings:
    """The settings that :func:`to_json` was given."""
    return msgspec.json.decode(data, type=Settings, dec_hook=lambda kind, value: kind(value))
