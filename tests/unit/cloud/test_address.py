"""The URL of an upstream: what it stands for, and what is not let in."""

import pytest

from tierce.cloud.address import parse_address
from tierce.core.errors import BadRequest
from tierce.upstream.cloud import open_upstream


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("s3://b", {"bucket": "b", "region": "us-east-1"}),
        (
            "s3://b/some/prefix?region=eu-west-1&endpoint=http://h:1",
            {
                "bucket": "b",
                "root": "/some/prefix",
                "region": "eu-west-1",
                "endpoint": "http://h:1",
            },
        ),
        ("s3://b?endpoint=h:1", {"bucket": "b", "region": "us-east-1", "endpoint": "https://h:1"}),
        ("gcs://b?credential_path=/f", {"bucket": "b", "credential_path": "/f"}),
        ("azblob://c?account_name=n", {"container": "c", "account_name": "n"}),
        ("webdav://h:1/p", {"endpoint": "https://h:1", "root": "/p"}),
        ("webdav:///p?endpoint=http://h", {"endpoint": "http://h", "root": "/p"}),
        ("fs:///a%20dir", {"root": "/a dir"}),
        ("memory:///", {}),
    ],
)
def test_a_url_becomes_options(url: str, options: dict[str, str]) -> None:
    address = parse_address(url, {})
    assert address.options == options
    assert address.service == url.partition(":")[0]
    assert address.shown == url


def test_s3_takes_region_and_endpoint_from_the_usual_variables() -> None:
    environ = {"AWS_DEFAULT_REGION": "r", "AWS_ENDPOINT_URL": "http://e"}
    assert parse_address("s3://b", environ).options["region"] == "r"
    assert parse_address("s3://b", environ).options["endpoint"] == "http://e"
    given = parse_address("s3://b?region=x&endpoint=http://y", environ).options
    assert (given["region"], given["endpoint"]) == ("x", "http://y")


def test_secrets_of_other_services_come_from_the_environment() -> None:
    environ = {"OPENDAL_WEBDAV_PASSWORD": "hidden", "OPENDAL_WEBDAV_NONSENSE": "x"}
    address = parse_address("webdav://h", environ)
    assert address.options == {"endpoint": "https://h", "password": "hidden"}
    assert "hidden" not in address.shown


@pytest.mark.parametrize(
    ("url", "variable"),
    [
        ("s3://b?secret_access_key=hidden", "AWS_SECRET_ACCESS_KEY"),
        ("s3://b?access_key_id=hidden", "AWS_ACCESS_KEY_ID"),
        ("s3://b?session_token=hidden", "AWS_SESSION_TOKEN"),
        ("s3://key:hidden@b", "AWS_SECRET_ACCESS_KEY"),
        ("s3://b?endpoint=http://key:hidden@h", "AWS_SECRET_ACCESS_KEY"),
        ("azblob://c?account_key=hidden", "OPENDAL_AZBLOB_ACCOUNT_KEY"),
        ("azblob://c?sas_token=hidden", "OPENDAL_AZBLOB_SAS_TOKEN"),
        ("gcs://b?credential=hidden", "OPENDAL_GCS_CREDENTIAL"),
        ("webdav://h?password=hidden", "OPENDAL_WEBDAV_PASSWORD"),
        ("webdav://me:hidden@h", "OPENDAL_WEBDAV_PASSWORD"),
        ("dropbox:///?refresh_token=hidden", "OPENDAL_DROPBOX_REFRESH_TOKEN"),
        ("b2://b?application_key=hidden", "OPENDAL_B2_APPLICATION_KEY"),
    ],
)
def test_a_secret_in_a_url_is_refused_with_the_variable_to_use(url: str, variable: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_address(url, {})
    assert variable in caught.value.hint
    assert "hidden" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("", "service"),
        ("bucket", "service"),
        ("http2://b", "service"),
        ("s3://", "bucket"),
        ("s3:///prefix", "bucket"),
        ("fs://", "directory"),
        ("fs://dir/a", "no such thing"),
        ("memory://a", "no such thing"),
        ("s3://b?endpont=x", "no option"),
        ("s3://b?region", "can't be read"),
        ("s3://[b", "can't be read"),
    ],
)
def test_a_wrong_url_is_refused_with_a_hint(url: str, told: str) -> None:
    with pytest.raises(BadRequest, match=told) as caught:
        parse_address(url, {})
    assert caught.value.hint


def test_a_misspelt_option_is_told_by_its_right_name() -> None:
    with pytest.raises(BadRequest) as caught:
        parse_address("s3://b?endpont=x", {})
    assert caught.value.hint == "Write endpoint."


@pytest.mark.parametrize("url", ["s3://b?enable_virtual_host_style=maybe", "azblob://c"])
def test_what_opendal_can_not_use_is_refused(url: str) -> None:
    with pytest.raises(BadRequest) as caught:
        open_upstream(url, environ={})
    assert "docs/upstream.md" in caught.value.hint
