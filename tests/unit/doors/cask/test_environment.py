"""The CASK_* variables: what each becomes, what is refused, and what the operator is told."""

import re
from pathlib import Path

import pytest

from tierce.blobs.credentials import service_options
from tierce.cloud.address import parse_address
from tierce.core.errors import BadRequest
from tierce.core.limits import WORKERS_MAX
from tierce.core.listen import Listen
from tierce.core.resolve import Resolved, resolve
from tierce.core.settings import Settings, shown
from tierce.doors.cask.environment import CASK_NAMES, from_cask_environment, s3_credentials

LEAST = {"CASK_PORT": "8080", "CASK_WRITEABLE": "true", "CASK_CLUSTER_SECRET": "sesame"}
TLS = {"CASK_BASE_URL": "https://h:1", "CASK_SSL_CERTIFICATE": "c.pem", "CASK_SSL_KEY": "k.pem"}


def no_file(path: Path) -> str:
    raise FileNotFoundError(path)


def resolved(**cask: str) -> Resolved:
    flags, _ = from_cask_environment(LEAST | cask)
    return resolve(flags, {}, {}, "", no_file)


def settings_of(**cask: str) -> Settings:
    return resolved(**cask).settings


def notes_of(**cask: str) -> str:
    return "\n".join(from_cask_environment(LEAST | cask)[1])


def refusal(**cask: str) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        resolved(**cask)
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("name", "text", "setting", "value"),
    [
        ("CASK_PORT", "+8081", "listen", (Listen("cask", "0.0.0.0", 8081),)),
        ("CASK_BASE_URL", "http://localhost:8080/", "cask_base_url", "http://localhost:8080"),
        ("CASK_UUID", "12345678", "node_id", "12345678"),
        ("CASK_WRITEABLE", "true", "read_only", False),
        ("CASK_BACKEND", "disk", "data", Path("data")),
        ("CASK_DISK_BACKEND_ROOT", "/srv/cask/", "data", Path("/srv/cask")),
        ("CASK_NEIGHBORS", "http://a:1/, https://b", "join", ("http://a:1", "https://b")),
        ("CASK_NEIGHBORS", "http://a:1,http://a:1", "join", ("http://a:1",)),
        ("CASK_NEIGHBORS", "", "join", ()),
        ("CASK_REPLICATION", "3", "replication", 3),
        ("CASK_REPLICATION", "0", "replication", 1),
        ("CASK_REPLICATION", "-2", "replication", 1),
        ("CASK_CLUSTER_SECRET", " sesame ", "cluster_secret", " sesame "),
        ("CASK_HEARTBEAT_INTERVAL", "7", "heartbeat_interval_seconds", 7.0),
        ("CASK_HEARTBEAT_INTERVAL", "0", "heartbeat_interval_seconds", 60.0),
        ("CASK_HEARTBEAT_INTERVAL", "-1", "heartbeat_interval_seconds", 60.0),
        ("CASK_AAE_INTERVAL", "9", "scrub_interval_seconds", 9.0),
        ("CASK_AAE_INTERVAL", "0", "scrub_interval_seconds", 5.0),
        ("CASK_MAX_PROCS", "3", "workers", 3),
        ("CASK_MAX_PROCS", "0", "workers", Settings().workers),
        ("CASK_MAX_PROCS", "5000", "workers", WORKERS_MAX),
        ("CASK_READ_TIMEOUT", "8", "header_timeout_seconds", 8.0),
        ("CASK_READ_TIMEOUT", "", "header_timeout_seconds", 5.0),
        ("CASK_READ_TIMEOUT", "0", "header_timeout_seconds", Settings().header_timeout_seconds),
        ("CASK_READ_TIMEOUT", "90", "progress_window_seconds", 90.0),
        ("CASK_WRITE_TIMEOUT", "50", "progress_window_seconds", 50.0),
        ("CASK_WRITE_TIMEOUT", "1", "progress_window_seconds", 5.0),
        ("CASK_WRITE_TIMEOUT", "", "progress_window_seconds", 20.0),
        ("CASK_MAX_UPLOAD_SIZE", "1000", "blob_limit_bytes", 1000),
        ("CASK_KEEP_FREE", "0", "reserve_bytes", 0),
        ("CASK_KEEP_FREE", "", "reserve_bytes", None),
        ("CASK_GOSSIP_PORT", "7946", "private", Listen("private", "127.0.0.1", 7946)),
        ("CASK_GOSSIP_PORT", "", "private", Listen("private", "127.0.0.1", 0)),
        ("CASK_GOSSIP_PORT", "7946", "advertise", ""),
        ("CASK_PORT", "8080", "ring_points", 16),
    ],
)
def test_variable_becomes_setting(name: str, text: str, setting: str, value: object) -> None:
    assert getattr(settings_of(**{name: text}), setting) == value


@pytest.mark.parametrize(
    ("replication", "maximum", "value"), [("3", "2", 3), ("3", "3", 3), ("2", "5", 5), ("2", "", 2)]
)
def test_max_replication_is_raised_to_replication(
    replication: str, maximum: str, value: int
) -> None:
    found = settings_of(CASK_REPLICATION=replication, CASK_MAX_REPLICATION=maximum)
    assert found.max_replication == value


@pytest.mark.parametrize("text", ["1", "t", "T", "TRUE", "true", "True"])
def test_writeable_is_true_as_in_go(text: str) -> None:
    assert not settings_of(CASK_WRITEABLE=text).read_only


@pytest.mark.parametrize("text", ["0", "f", "F", "FALSE", "false", "False"])
def test_writeable_is_false_as_in_go(text: str) -> None:
    assert settings_of(CASK_WRITEABLE=text).read_only


@pytest.mark.parametrize("text", ["yes", "no", "on", "tRUE", "y", "2"])
def test_writeable_is_refused_otherwise(text: str) -> None:
    assert f"CASK_WRITEABLE='{text}'" in refusal(CASK_WRITEABLE=text).message


def test_without_writeable_the_node_is_read_only_and_says_so() -> None:
    assert settings_of(CASK_WRITEABLE="").read_only
    assert "CASK_WRITEABLE is not set" in notes_of(CASK_WRITEABLE="")


def test_without_secret_the_node_listens_on_loopback_and_says_so() -> None:
    listen = settings_of(CASK_CLUSTER_SECRET="").listen
    assert listen == (Listen("cask", "127.0.0.1", 8080),)
    assert "127.0.0.1 only" in notes_of(CASK_CLUSTER_SECRET="")


@pytest.mark.parametrize(
    ("url", "port", "advertised"),
    [
        ("http://cask.example:8080", "7946", "cask.example:7946"),
        ("http://cask.example", "", "cask.example:0"),
        ("http://[fd00::1]:8080", "7946", "[fd00::1]:7946"),
    ],
)
def test_other_tierce_nodes_are_told_the_host_of_the_base_url(
    url: str, port: str, advertised: str
) -> None:
    found = settings_of(CASK_BASE_URL=url, CASK_GOSSIP_PORT=port)
    assert found.advertise == advertised
    assert found.private == Listen("private", "0.0.0.0", int(port or 0))


def test_without_secret_other_nodes_can_not_reach_it() -> None:
    found = settings_of(CASK_CLUSTER_SECRET="", CASK_BASE_URL="http://cask.example:8080")
    assert (found.private.host, found.advertise) == ("127.0.0.1", "")


def test_what_neighbors_need_is_noted() -> None:
    cask = {"CASK_NEIGHBORS": "http://a:1", "CASK_BASE_URL": "http://b:1"}
    assert notes_of(**cask) == ""
    for missing in ("CASK_BASE_URL", "CASK_CLUSTER_SECRET"):
        assert "CASK_NEIGHBORS needs" in notes_of(**cask | {missing: ""})


@pytest.mark.parametrize("name", ["CASK_SSL_CERTIFICATE", "CASK_SSL_CERT"])
def test_tls_takes_both_names_of_the_certificate(name: str) -> None:
    found = settings_of(CASK_BASE_URL="https://h", CASK_SSL_KEY="k", **{name: "c"})
    assert (found.tls_certificate, found.tls_key) == (Path("c"), Path("k"))


def test_both_names_of_the_certificate_may_name_the_same_file() -> None:
    assert settings_of(**TLS, CASK_SSL_CERT="c.pem").tls_certificate == Path("c.pem")


@pytest.mark.parametrize(
    ("cask", "part", "hint"),
    [
        ({"CASK_PORT": ""}, "CASK_PORT is not set", "port"),
        ({"CASK_PORT": "x"}, "CASK_PORT='x'", "digits"),
        ({"CASK_PORT": "99999"}, "CASK_PORT", "65535"),
        ({"CASK_PORT": "-1"}, "CASK_PORT", "65535"),
        ({"CASK_PORT": "tcp://10.0.0.1:8080"}, "CASK_PORT='tcp:", "enableServiceLinks"),
        ({"CASK_GOSSIP_PORT": "x"}, "CASK_GOSSIP_PORT='x'", "digits"),
        ({"CASK_GOSSIP_PORT": "99999"}, "CASK_GOSSIP_PORT", "65535"),
        ({"CASK_BASE_URL": "localhost:8080"}, "CASK_BASE_URL", "http://"),
        ({"CASK_UUID": "1234567"}, "CASK_UUID='1234567'", "uuidgen"),
        ({"CASK_UUID": "1234/5678"}, "CASK_UUID", "slash"),
        ({"CASK_UUID": "1234\n5678"}, "CASK_UUID", "control"),
        ({"CASK_BACKEND": "s3"}, "CASK_S3_BUCKET='' is not a bucket", "name of the bucket"),
        (
            {"CASK_BACKEND": "s3", "CASK_S3_BUCKET": "a/b?secret_access_key=x"},
            "is not a bucket",
            "name of the bucket",
        ),
        ({"CASK_BACKEND": "azure"}, "CASK_BACKEND='azure' is not a", "dropbox or gdrive"),
        ({"CASK_BACKEND": "disc"}, "CASK_BACKEND='disc' is not a", "Did you mean disk?"),
        ({"CASK_NEIGHBORS": "10.0.0.1:7946"}, "CASK_NEIGHBORS", "http://"),
        ({"CASK_REPLICATION": "0x3"}, "CASK_REPLICATION='0x3'", "digits"),
        ({"CASK_REPLICATION": "1_0"}, "CASK_REPLICATION='1_0'", "digits"),
        ({"CASK_AAE_INTERVAL": "5s"}, "CASK_AAE_INTERVAL='5s'", "digits"),
        ({"CASK_KEEP_FREE": "1GiB"}, "CASK_KEEP_FREE='1GiB'", "digits"),
        ({"CASK_MAX_UPLOAD_SIZE": "0"}, "CASK_MAX_UPLOAD_SIZE", "from 1"),
        ({"CASK_BASE_URL": "https://h"}, "no certificate", "CASK_SSL_CERTIFICATE"),
        (TLS | {"CASK_BASE_URL": "http://h"}, "is not https", "https://"),
        (TLS | {"CASK_BASE_URL": ""}, "is not https", "https://"),
        (TLS | {"CASK_SSL_KEY": ""}, "without CASK_SSL_KEY", "both"),
        (TLS | {"CASK_SSL_CERTIFICATE": ""}, "without CASK_SSL_CERTIFICATE", "both"),
        (TLS | {"CASK_SSL_CERT": "d.pem"}, "two different files", "one"),
        ({"CASK_WRITABLE": "true"}, "CASK_WRITABLE", "Did you mean CASK_WRITEABLE?"),
        ({"CASK_NEIGHBOURS": ""}, "CASK_NEIGHBOURS", "Did you mean CASK_NEIGHBORS?"),
        ({"CASK_SERVICE_HOST": "10.0.0.1"}, "CASK_SERVICE_HOST", "enableServiceLinks"),
    ],
)
def test_environment_is_refused(cask: dict[str, str], part: str, hint: str) -> None:
    error = refusal(**cask)
    assert part in error.message
    assert hint in error.hint


def test_a_bad_secret_is_refused_and_not_shown() -> None:
    error = refusal(CASK_CLUSTER_SECRET="ses\tame")
    assert "CASK_CLUSTER_SECRET" in error.message
    assert "ame" not in error.message.replace("CASK_CLUSTER_SECRET", "")


def test_names_without_the_prefix_are_not_read() -> None:
    flags, _ = from_cask_environment(LEAST | {"BASE_URL": "http://h", "UUID": "12345678"})
    assert "cask_base_url" not in flags
    assert "node_id" not in flags


@pytest.mark.parametrize("name", [n for n in CASK_NAMES if re.search("S3|DROPBOX", n)])
def test_a_name_that_is_not_used_is_noted_without_its_value(name: str) -> None:
    notes = notes_of(**{name: "hush"})
    assert f"{name} is not used" in notes
    assert "hush" not in notes


def test_given_timeouts_are_noted() -> None:
    assert "progress" in notes_of(CASK_READ_TIMEOUT="5")
    assert "CASK_WRITE_TIMEOUT is not above 0" in notes_of(CASK_WRITE_TIMEOUT="0")


def test_a_complete_environment_gets_no_notes() -> None:
    assert notes_of() == ""


def test_origins_name_the_variable() -> None:
    origins = resolved(CASK_REPLICATION="2", CASK_WRITEABLE="").origins
    assert origins["replication"] == "environment CASK_REPLICATION"
    assert origins["listen"] == "environment CASK_PORT"
    assert origins["cluster_secret"] == "environment CASK_CLUSTER_SECRET"
    assert origins["read_only"] == "CASK_WRITEABLE, which is not set"
    assert origins["header_timeout_seconds"] == "default of CASK_READ_TIMEOUT"
    assert origins["data"] == "default"


def test_a_bucket_is_used_as_a_cask_node_left_it() -> None:
    bucket = {
        "CASK_BACKEND": "s3",
        "CASK_S3_BUCKET": "blobs",
        "CASK_S3_ACCESS_KEY": "key",
        "CASK_S3_SECRET_KEY": "very secret",
    }
    found = settings_of(**bucket)
    assert (found.store, found.store_layout) == ("s3://blobs", "cask")
    found = settings_of(
        **bucket, CASK_S3_ENDPOINT="http://127.0.0.1:9000", CASK_S3_REGION="eu-west-1"
    )
    assert found.store == "s3://blobs?endpoint=http://127.0.0.1:9000&region=eu-west-1"
    assert "very secret" not in str(shown(found))
    assert s3_credentials(bucket) == {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "very secret",
    }
    assert s3_credentials({**bucket, "CASK_BACKEND": "disk"}) == {}
    assert settings_of(**{**bucket, "CASK_BACKEND": "disk"}).store == ""


@pytest.mark.parametrize("backend", ["dropbox", "gdrive"])
def test_blobs_in_an_account_are_below_the_nodes_id(backend: str) -> None:
    found = settings_of(CASK_BACKEND=backend, CASK_UUID="a node's id")
    assert (found.store, found.store_layout) == (f"{backend}:///tierce/a%20node%27s%20id", "tierce")
    assert parse_address(found.store, {}).options == {"root": "/tierce/a node's id"}
    assert settings_of(CASK_BACKEND=backend).store == f"{backend}:///tierce"
    assert f"The blobs are in {found.store}." in notes_of(
        CASK_BACKEND=backend, CASK_UUID="a node's id"
    )


def test_the_app_at_dropbox_is_used_with_that_backend_only(tmp_path: Path) -> None:
    app = {
        "CASK_DROPBOX_ACCESS_KEY": "app-key",
        "CASK_DROPBOX_SECRET_KEY": "hush-hush",
        "CASK_DROPBOX_TOKEN": "hush-token",
    }
    assert "not used" not in notes_of(CASK_BACKEND="dropbox", **app)
    assert service_options("dropbox", tmp_path, app) == {"access_token": "hush-token"}
    for backend in ("disk", "gdrive"):
        notes = notes_of(CASK_BACKEND=backend, **app)
        for name in app:
            assert f"{name} is not used without CASK_BACKEND=dropbox." in notes
    assert "hush" not in str(shown(settings_of(CASK_BACKEND="dropbox", **app)))
