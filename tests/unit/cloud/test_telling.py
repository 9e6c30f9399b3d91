"""What services tell of an object, in one form; and which of them are believed."""

import pytest

from tierce.cloud.address import parse_address
from tierce.cloud.telling import checks_itself, md5_of, tag_of

HEX = "5d41402abc4b2a76b9719d911017c592"


@pytest.mark.parametrize(
    ("told", "tag"),
    [(None, ""), ("", ""), ('"a-2"', "a-2"), ("a-2", "a-2"), ('W/"a-2"', ""), ("0x8DE", "0x8DE")],
)
def test_a_tag_is_the_same_from_a_listing_and_by_name(told: str | None, tag: str) -> None:
    assert tag_of(told) == tag


@pytest.mark.parametrize(
    ("told", "md5"),
    [
        (None, ""),
        (HEX, HEX),
        (HEX.upper(), HEX),
        (f'"{HEX}"', HEX),
        ("XUFAKrxLKna5cZ2REBfFkg==", HEX),
        ("XUFAKrxLKna5cZ2REBfF", ""),
        (f"{HEX}-2", ""),
        ("not a sum!", ""),
    ],
)
def test_an_md5_is_read_from_hex_and_base64(told: str | None, md5: str) -> None:
    assert md5_of(told) == md5


@pytest.mark.parametrize(
    ("url", "is_believed"),
    [
        ("s3://b/p?region=eu-west-1", True),
        ("s3://b?endpoint=https://s3.eu-west-1.amazonaws.com", True),
        ("s3://b?endpoint=https://s3.cn-north-1.amazonaws.com.cn", True),
        ("s3://b?endpoint=http://127.0.0.1:9000", False),
        ("s3://b?endpoint=https://amazonaws.com.example.org", False),
        ("s3://b?endpoint=https://example-amazonaws.com", False),
        ("gcs://b", True),
        ("gcs://b?endpoint=http://127.0.0.1:4443", False),
        ("azblob://c?endpoint=https://account.blob.core.windows.net", True),
        ("azblob://c?endpoint=http://127.0.0.1:10000/devstoreaccount1", False),
        ("azblob://c", False),
        ("webdav://host/path", False),
        ("memory:///", False),
        ("fs:///srv", False),
    ],
)
def test_only_services_that_say_so_of_themselves_check_their_bytes(
    url: str, is_believed: bool
) -> None:
    assert checks_itself(parse_address(url, {})) is is_believed


def test_an_endpoint_from_the_environment_is_ones_own() -> None:
    assert not checks_itself(parse_address("s3://b", {"AWS_ENDPOINT_URL": "http://minio:9000"}))
