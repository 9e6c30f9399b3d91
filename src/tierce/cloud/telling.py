"""What a service tells of an object without sending it, in one form, and who is to be believed. Pure.

An entity tag changes whenever an object is written anew. Services differ in how they write it: quoted
or not, in a listing otherwise than by itself. Some tell the MD5 of the content too, and Amazon's tag of
an object that was put in one request is its MD5, unless it is encrypted with a key of the customer's.

That a tag is unchanged proves something about the bytes only if the service reads them again by itself,
compares them with checksums of its own, and repairs them. Those below say so of themselves in public:

- Amazon S3: "regularly verifies the integrity of your data using checksums" (user guide, data
  protection).
- Google Cloud Storage: checksums of data at rest are checked continually (its pages on durability).
- Azure Blob Storage: checksums are stored with each fragment, and verified by background jobs (its pages
  on redundancy and data integrity).

Of servers that anyone may run under the same protocols nothing is known: some hand out a tag that was
made from time and size, or read it from a file beside the content.
"""

import base64
import binascii
import re
from urllib.parse import urlsplit

from tierce.cloud.address import Address

_HOSTS = {
    "s3": (".amazonaws.com", ".amazonaws.com.cn"),
    "gcs": (".googleapis.com",),
    "azblob": (
        ".blob.core.windows.net",
        ".blob.core.chinacloudapi.cn",
        ".blob.core.usgovcloudapi.net",
    ),
}
"""Services that check their bytes, and the ends of the names of the hosts where it is really they."""
_OWN_HOST = ("s3", "gcs")
"""Those that are where they are without any ``endpoint``."""
_MD5 = re.compile(r"[0-9a-f]{32}")
_MD5_BYTES = 16


def tag_of(told: str | None) -> str:
    """An entity tag without its quotes; empty for none, and for a weak one, which proves nothing."""
    if not told or told.startswith("W/"):
        return ""
    return told.strip('"')


def md5_of(told: str | None) -> str:
    """An MD5 in hex, from hex or base64; empty for none, and for what is none."""
    text = (told or "").strip('"')
    if _MD5.fullmatch(text.lower()):
        return text.lower()
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return ""
    return raw.hex() if len(raw) == _MD5_BYTES else ""


def checks_itself(address: Address) -> bool:
    """Whether what is at an address is a service that checks its bytes by itself."""
    hosts = _HOSTS.get(address.service)
    if hosts is None:
        return False
    endpoint = address.options.get("endpoint", "")
    if not endpoint:
        return address.service in _OWN_HOST
    host = urlsplit(endpoint).hostname or ""
    return f".{host}".endswith(hosts)
