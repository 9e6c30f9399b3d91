"""Kinds of values: what is shown of them."""

import pytest

from tierce.core import kinds
from tierce.core.errors import BadRequest


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (
            "s3://bucket/p?endpoint=http://h:1&region=r",
            "s3://bucket/p?endpoint=http://h:1&region=r",
        ),
        ("s3://b?secret_access_key=hush&region=r", "s3://b?secret_access_key=...&region=r"),
        ("dropbox:///p?refresh_token=hush", "dropbox:///p?refresh_token=..."),
        ("webdav://me:hush@host/p", "webdav://...@host/p"),
        ("mysql://me:hush/hush@host/db", "mysql://...@host/db"),
        ("mysql:///me:hush@host/db", "mysql://...@host/db"),
        ("mysql:///?connection_string=mysql:hush", "mysql:///?connection_string=..."),
        ("webhdfs://h/p?delegation=hush", "webhdfs://h/p?delegation=..."),
        ("s3://bucket/a@b", "s3://bucket/a@b"),
    ],
)
def test_a_secret_in_the_url_of_a_store_is_never_shown(url: str, shown: str) -> None:
    for kind in (kinds.store_or_empty, kinds.upstream_or_empty):
        assert kind.show(kind.parse(url)) == shown


def test_a_secret_in_what_is_no_url_is_never_shown() -> None:
    with pytest.raises(BadRequest) as caught:
        kinds.store_or_empty.parse("webdav://me:hush@host/a b")
    assert "hush" not in caught.value.message
