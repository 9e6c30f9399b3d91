"""Every service of the installed OpenDAL, and every option of each: secret or not, and opened by URL."""

from pathlib import Path

import opendal
import pytest

from tierce.cloud.address import INSTALLED, is_secret, parse_address, service_options
from tierce.cloud.bucket import open_bucket
from tierce.core.errors import BadRequest

SECRET = """
    access_key_id access_key_secret access_token account_key api_token application_key
    application_key_id client_secret connection_string credential delegation encryption_key key
    password refresh_token runtime_token sas_token secret_access_key secret_id secret_key
    security_token server_side_encryption_customer_key session_token temp_url_key token
"""
SHOWN = """
    account_id account_name addressing_style allow_anonymous assume_role_duration_seconds
    assume_role_session_tags atomic_write_dir authority_host batch_max_operations bucket bucket_id
    checksum_algorithm chunk_size client_id cluster_endpoints collection connection_pool_max_size
    container credential_path database datadir datafile db default_acl default_storage_class
    default_ttl delete_max_size disable_config_load disable_copy disable_create_dir
    disable_ec2_metadata disable_list_batch disable_list_objects_v2 disable_stat_with_override
    disable_vm_metadata disable_write_with_if_match download_mode drive_type email enable_append
    enable_conditional_read enable_copy enable_hns enable_request_payer enable_resolve_cache
    enable_user_metadata enable_versioning enable_virtual_host_style enable_write_with_append
    encryption_algorithm encryption_key_sha256 endpoint external_id filesystem index key_field
    known_hosts_strategy max_capacity name name_node namespace_id oidc_provider_arn oidc_token_file
    operator options predefined_acl presign_addressing_style presign_endpoint profile region repo_id
    repo_name repo_type revision role_arn role_session_name scope segment server_side_encryption
    server_side_encryption_aws_kms_key_id server_side_encryption_customer_algorithm
    server_side_encryption_customer_key_md5 server_side_encryption_key_id service_account share_name
    skip_signature sts_endpoint table team_id team_slug temp_url_hash_algorithm tenant_id
    time_to_idle time_to_live tree user user_metadata_prefix user_metadata_uri user_name username
    value_field version
"""
"""All other options."""
HOST = "http://127.0.0.1:9"
DATABASE = {"connection_string": "x://u:hush@127.0.0.1:9/d", "table": "t"}
KEYS = {"access_key_id": "hush-id", "secret_access_key": "hush-key"}
# What each service wants at least. TMP is a directory.
WANTED: dict[str, tuple[str, dict[str, str]]] = {
    "aliyun-drive": ("///p", {"access_token": "hush-token", "drive_type": "default"}),
    "alluxio": ("///p", {"endpoint": HOST}),
    "azblob": ("://c/p", {"endpoint": HOST, "account_name": "n", "account_key": "aHVzaA=="}),
    "azdls": ("://f/p", {"endpoint": HOST, "account_name": "n", "account_key": "aHVzaA=="}),
    "azfile": ("://s/p", {"endpoint": HOST, "account_name": "n", "account_key": "aHVzaA=="}),
    "b2": (
        "://b/p",
        {"bucket_id": "i", "application_key_id": "hush-id", "application_key": "hush"},
    ),
    "cacache": ("", {"datadir": "TMP"}),
    "cos": ("://b/p", {"endpoint": HOST, "secret_id": "hush-id", "secret_key": "hush-key"}),
    "dropbox": ("///p", {"access_token": "hush-token"}),
    "fs": ("://TMP", {}),
    "ftp": ("///p", {"endpoint": "ftp://127.0.0.1:9", "user": "u", "password": "hush"}),
    "gcs": ("://b/p", {"token": "hush-token"}),
    "gcs-grpc": ("://b/p", {"token": "hush-token"}),
    "gdrive": ("///p", {"access_token": "hush-token"}),
    "gridfs": ("://b/p", {"connection_string": "mongodb://u:hush@127.0.0.1:9/d", "database": "d"}),
    "hdfs-native": ("///p", {"name_node": "hdfs://127.0.0.1:9"}),
    "ipmfs": ("///p", {"endpoint": HOST}),
    "memcached": ("///p", {"endpoint": "tcp://127.0.0.1:9", "password": "hush"}),
    "mongodb": (
        "///p",
        {"connection_string": "mongodb://u:hush@127.0.0.1:9/d", "database": "d", "collection": "c"},
    ),
    "mysql": ("///p", DATABASE | {"connection_string": "mysql://u:hush@127.0.0.1:9/d"}),
    "obs": ("://b/p", {"endpoint": HOST, **KEYS}),
    "onedrive": ("///p", {"access_token": "hush-token"}),
    "oss": ("://b/p", {"endpoint": HOST, "access_key_id": "i", "access_key_secret": "hush"}),
    "persy": ("", {"datafile": "TMP/f", "segment": "s", "index": "i"}),
    "postgresql": ("///p", DATABASE | {"connection_string": "postgresql://u:hush@127.0.0.1:9/d"}),
    "redb": ("///p", {"datadir": "TMP/f", "table": "t"}),
    "redis": ("///p", {"endpoint": "redis://127.0.0.1:9", "password": "hush"}),
    "s3": ("://b/p", {"endpoint": HOST}),
    "seafile": ("///p", {"endpoint": HOST, "repo_name": "r", "username": "u", "password": "hush"}),
    "sled": ("///p", {"datadir": "TMP/d"}),
    "sqlite": ("///p", DATABASE | {"connection_string": "sqlite://TMP/f"}),
    "swift": ("://c/p", {"endpoint": HOST, "token": "hush-token"}),
    "tos": ("://b/p", {"endpoint": HOST, "region": "r", **KEYS}),
    "upyun": ("://b/p", {"operator": "o", "password": "hush"}),
    "webdav": ("///p", {"endpoint": HOST, "password": "hush", "username": "u"}),
    "webhdfs": ("///p", {"endpoint": HOST, "delegation": "hush"}),
    "yandex-disk": ("///p", {"access_token": "hush-token"}),
} | {name: ("///p", {}) for name in ("dashmap", "memory", "mini-moka", "moka")}
NO_STORES = """
    alluxio cacache gridfs memcached mongodb persy postgresql redb redis sqlite
"""
"""Those that OpenDAL can't list, or not read from."""
NOT_TRIED = {"ghac", "hf", "http", "ipfs", "koofr", "vercel-artifacts"}
"""Koofr is refused by OpenDAL 0.47.12 whatever it is given; the others are for reading or caching."""


def test_of_every_option_it_is_decided_whether_it_is_a_secret() -> None:
    """A new OpenDAL brings new options: put each into one of the lists above, and see that this ends."""
    options = set().union(*service_options().values())
    secret, shown = set(SECRET.split()), set(SHOWN.split())
    assert options - secret - shown == set()
    assert {name for name in options if is_secret(name)} == secret & options


def test_every_service_that_is_installed_is_tried_here() -> None:
    assert set(WANTED) | NOT_TRIED == INSTALLED
    assert not set(WANTED) & NOT_TRIED


@pytest.mark.parametrize("service", sorted(INSTALLED))
def test_a_secret_is_not_taken_from_a_url(service: str) -> None:
    place = WANTED.get(service, ("///p", {}))[0].replace("TMP", "/t") or "///p"
    for option in sorted(filter(is_secret, service_options()[service])):
        with pytest.raises(BadRequest, match="secret") as caught:
            parse_address(f"{service}:{place.removeprefix(':')}?{option}=hidden", {})
        assert "hidden" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize("service", sorted(WANTED))
async def test_a_service_that_can_be_a_store_is_opened_by_a_url_and_the_environment(
    service: str, tmp_path: Path
) -> None:
    place, options = WANTED[service]
    url = f"{service}:{(place or '///').removeprefix(':')}".replace("TMP", str(tmp_path))
    if service == "s3":
        url, options = f"{url}?endpoint={options['endpoint']}", {}
    prefix = f"OPENDAL_{service}_".upper().replace("-", "_")
    environ = {
        f"{prefix}{name}".upper(): value.replace("TMP", str(tmp_path))
        for name, value in options.items()
    }
    if service in NO_STORES.split():
        with pytest.raises(BadRequest, match=f"^{service} can't be a store"):
            open_bucket(url, environ=environ)
        return
    bucket = open_bucket(url, environ=environ)
    assert bucket.shown == url
    assert "hush" not in str(bucket.status())


@pytest.mark.parametrize("service", sorted(set(service_options()) - INSTALLED))
def test_a_service_that_is_not_in_the_wheel_is_refused_with_those_that_are(service: str) -> None:
    with pytest.raises(opendal.exceptions.Unsupported):
        opendal.AsyncOperator(service)
    with pytest.raises(BadRequest, match=f"^{service} is not among the services") as caught:
        parse_address(f"{service}:///p", {})
    assert "onedrive" in caught.value.hint


@pytest.mark.parametrize("service", ["http", "ipfs"])
def test_a_service_that_can_only_read_is_no_store(service: str) -> None:
    url = {"http": f"http:///?endpoint={HOST}", "ipfs": f"ipfs:///ipfs/x?endpoint={HOST}"}[service]
    with pytest.raises(BadRequest, match="can't be a store"):
        open_bucket(url, environ={})


@pytest.mark.parametrize(
    ("url", "variable"),
    [
        ("mysql://u:hidden@h/d", "OPENDAL_MYSQL_CONNECTION_STRING"),
        ("postgresql:///u:hidden@h/d", "OPENDAL_POSTGRESQL_CONNECTION_STRING"),
        ("mongodb:///mongodb://u:hidden@h", "OPENDAL_MONGODB_CONNECTION_STRING"),
        ("redis://:hidden@h:6379/", "OPENDAL_REDIS_PASSWORD"),
        ("redis:///?cluster_endpoints=redis://:hidden@h", "OPENDAL_REDIS_PASSWORD"),
        ("webhdfs://hidden:x@h", "OPENDAL_WEBHDFS_"),
    ],
)
def test_a_password_before_a_host_is_refused_with_the_variable_to_use(
    url: str, variable: str
) -> None:
    with pytest.raises(BadRequest, match="user's name or password") as caught:
        parse_address(url, {})
    assert variable in caught.value.hint
    assert "hidden" not in caught.value.message + caught.value.hint
