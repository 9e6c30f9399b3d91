"""What OpenDAL 0.47.12 says of credentials, as it was recorded from it, and what becomes of that."""

import pytest
from opendal import exceptions

from tierce.cloud.failures import STORE, UPSTREAM, Passing, translate
from tierce.core.errors import Full, NotFound, Refused, TierceError, Unavailable

SECRET = "1//0gHushHushHush"
"""Stands where a refresh token does; nobody has told hiding.py of it."""
BY_AUTH = "Run `tierce auth {}`"


def raised(
    said: str, service: str, *, status: int = 0, operation: str = "GetObject", source: str = ""
) -> exceptions.Unexpected:
    """An error with the layout of OpenDAL's texts; ``said`` is its first line from the kind on."""
    context = [f"service: {service}", "path: a/b"]
    if status:
        uri = f"https://host/token?refresh_token={SECRET}&client_secret={SECRET}"
        headers = '{"content-type": "application/json", "content-length": "74"}'
        response = f"Parts {{ status: {status}, version: HTTP/1.1, headers: {headers} }}"
        context[:0] = [f"service_operation: {operation}", f"uri: {uri}", f"response: {response}"]
    text = f"{said}\n\nContext:\n" + "".join(f"   {line}\n" for line in context)
    if source:
        text += f"\nSource:\n   {source}\n"
    return exceptions.Unexpected(text + "\nBacktrace:\n   0: <unknown>\n")


def failure(error: Exception, what: str = STORE) -> TierceError:
    found = translate(error, "reading a/b", what)
    assert SECRET not in found.message + found.hint
    return found


def s3(code: str, status: int) -> exceptions.Unexpected:
    kind = "PermissionDenied" if status == 403 else "Unexpected"
    said = f'{kind} (permanent) at read => S3Error {{ code: "{code}", message: "It said no." }}'
    return raised(said, "s3", status=status)


UNEXPECTED = "Unexpected (permanent) at read => "
DROPBOX_TOKEN = raised(
    "Unexpected (permanent) at stat => deserialize json",
    "dropbox",
    source="missing field `access_token` at line 1 column 86",
)
GDRIVE_TOKEN = raised(
    UNEXPECTED + '{"error": "invalid_grant", "error_description": "Token has been revoked."}',
    "gdrive",
    status=400,
    operation="RefreshAccessToken",
)


@pytest.mark.parametrize(
    ("error", "told", "hint"),
    [
        (DROPBOX_TOKEN, "gave no access token", BY_AUTH.format("dropbox")),
        (
            raised(
                UNEXPECTED + 'DropboxErrorResponse { error_summary: "expired_access_token/.." }',
                "dropbox",
                status=401,
            ),
            "expired_access_token/..",
            BY_AUTH.format("dropbox"),
        ),
        (
            raised(
                UNEXPECTED + 'DropboxErrorResponse { error_summary: "missing_scope/." }',
                "dropbox",
                status=401,
            ),
            "missing_scope",
            "Tick the app's permissions",
        ),
        (
            raised(
                UNEXPECTED + "The given OAuth 2 access token is malformed.", "dropbox", status=400
            ),
            "malformed",
            BY_AUTH.format("dropbox"),
        ),
        (GDRIVE_TOKEN, "Token has been revoked.", BY_AUTH.format("gdrive")),
        (
            raised(
                UNEXPECTED + '{"error": "invalid_grant", "error_description": "AADSTS70000: no."}',
                "onedrive",
                status=400,
                operation="RefreshAccessToken",
            ),
            "AADSTS70000: no.",
            "OPENDAL_ONEDRIVE_...",
        ),
        (
            raised(UNEXPECTED + '{"error": {"code": "InvalidAuthenticationToken"}}', "onedrive"),
            "InvalidAuthenticationToken",
            "OPENDAL_ONEDRIVE_...",
        ),
        (s3("ExpiredToken", 400), "It said no. (ExpiredToken)", "AWS_SESSION_TOKEN"),
        (s3("InvalidAccessKeyId", 403), "InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"),
        (s3("SignatureDoesNotMatch", 403), "SignatureDoesNotMatch", "AWS_ACCESS_KEY_ID"),
        (s3("RequestTimeTooSkewed", 403), "RequestTimeTooSkewed", "Set this machine's clock"),
        (
            raised("Unexpected (permanent) at stat", "s3", status=400, operation="HeadObject"),
            "HTTP status 400",
            "Check the region. Set new keys",
        ),
        (raised("Unexpected (permanent) at read", "webdav", status=401), "401", "OPENDAL_WEBDAV_"),
    ],
)
def test_credentials_that_are_refused_say_what_to_do(
    error: Exception, told: str, hint: str
) -> None:
    found = failure(error)
    assert type(found) is Refused  # and so no failure of the service, and not tried again
    assert "its credentials are refused" in found.message
    assert told in found.message
    assert hint in found.hint


def test_tokens_of_an_upstream_are_not_those_of_tierce_auth() -> None:
    hint = failure(GDRIVE_TOKEN, UPSTREAM).hint
    assert "OPENDAL_GDRIVE_..." in hint
    assert "tierce auth" not in hint


def test_a_lacking_right_is_not_taken_for_bad_credentials() -> None:
    found = failure(s3("AccessDenied", 403))
    assert type(found) is Refused
    assert "credentials are refused" not in found.message


@pytest.mark.parametrize(
    "error",
    [
        raised(
            UNEXPECTED + 'DropboxErrorResponse { error_summary: "path/insufficient_space/.." }',
            "dropbox",
            status=409,
        ),
        raised(
            UNEXPECTED + '{"error":{"code":"quotaLimitReached","message":"None."}}',
            "onedrive",
            status=507,
        ),
        raised("Unexpected (permanent) at write", "webdav", status=507),
    ],
)
def test_a_full_account_is_told_as_such(error: Exception) -> None:
    assert type(failure(error)) is Full


def test_a_name_of_an_object_decides_nothing() -> None:
    text = str(raised("NotFound (permanent) at read => no", "s3", status=404))
    named = exceptions.NotFound(text.replace("a/b", "insufficient_space/ExpiredToken"))
    assert type(failure(named)) is NotFound
    broken = str(raised("Unexpected (temporary) at read => reset", "s3", status=500))
    again = exceptions.Unexpected(broken.replace("a/b", "insufficient_space/ExpiredToken"))
    assert type(failure(again)) is Passing


def test_an_answer_that_is_no_json_may_pass() -> None:
    error = raised(
        "Unexpected (permanent) at stat => deserialize json",
        "dropbox",
        source="expected value at line 1 column 1",
    )
    assert type(failure(error)) is Passing


def test_a_secret_in_the_words_of_an_error_is_not_passed_on() -> None:
    url = f"https://oauth2.googleapis.com/token?refresh_token={SECRET}&client_id=me"
    for text in (
        f"Unexpected (persistent) at read => error sending request for url ({url})",
        f"Unexpected (temporary) at read\n\nSource:\n   error for {url}",
        f"error sending request for url ({url})",  # without OpenDAL's head
        f'Unexpected (permanent) at read => {{"refresh_token": "{SECRET}"}}',
    ):
        found = failure(exceptions.Unexpected(text))
        assert isinstance(found, Unavailable)
        assert "..." in found.message


def test_an_endpoint_without_tls_is_told() -> None:
    error = raised(
        "Unexpected (temporary) at stat => send http request",
        "s3",
        source="client error (Connect): received corrupt message of type InvalidContentType",
    )
    found = failure(error)
    assert type(found) is Passing
    assert "endpoint=http://" in found.hint


@pytest.mark.parametrize(
    ("what", "page"), [(STORE, "docs/storage.md"), (UPSTREAM, "docs/upstream.md")]
)
def test_who_gives_no_credentials_is_sent_to_the_page_that_tells_of_them(
    what: str, page: str
) -> None:
    error = raised(
        "Unexpected (permanent) at read => signing http request",
        "azblob",
        source="no valid credential found",
    )
    assert page in failure(error, what).hint
