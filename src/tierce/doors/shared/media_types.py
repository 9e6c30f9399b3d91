"""Which type a file is served as: by the extension of its name, else by its first bytes.

The same on every machine: extensions are looked up in a table of our own, then in the one that
Python has built in, never in the system's files. First bytes are judged by the rules of the WHATWG's
MIME Sniffing standard, as far as Go's http.DetectContentType has them, in its words and order.
"""

import mimetypes
import re

from tierce.core.limits import SNIFFED_BYTES

TEXT = "text/plain; charset=utf-8"
UNKNOWN = "application/octet-stream"

_COMMON = {
    ".7z": "application/x-7z-compressed", ".avi": "video/x-msvideo", ".avif": "image/avif",
    ".bz2": "application/x-bzip2", ".css": "text/css", ".csv": "text/csv",
    ".doc": "application/msword", ".epub": "application/epub+zip", ".flac": "audio/flac",
    ".gif": "image/gif", ".gz": "application/gzip", ".heic": "image/heic", ".htm": "text/html",
    ".html": "text/html", ".ico": "image/vnd.microsoft.icon", ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg", ".js": "text/javascript", ".json": "application/json",
    ".log": "text/plain", ".m4a": "audio/mp4", ".m4v": "video/mp4", ".md": "text/markdown",
    ".mjs": "text/javascript", ".mkv": "video/x-matroska", ".mov": "video/quicktime",
    ".mp3": "audio/mpeg", ".mp4": "video/mp4", ".mpeg": "video/mpeg", ".mpg": "video/mpeg",
    ".oga": "audio/ogg", ".ogg": "audio/ogg", ".ogv": "video/ogg", ".opus": "audio/ogg",
    ".otf": "font/otf", ".pdf": "application/pdf", ".png": "image/png",
    ".rar": "application/vnd.rar", ".rtf": "application/rtf", ".svg": "image/svg+xml",
    ".tar": "application/x-tar", ".tgz": "application/gzip", ".tif": "image/tiff",
    ".tiff": "image/tiff", ".ttf": "font/ttf", ".txt": "text/plain", ".wasm": "application/wasm",
    ".wav": "audio/x-wav", ".weba": "audio/webm", ".webm": "video/webm", ".webp": "image/webp",
    ".woff": "font/woff", ".woff2": "font/woff2", ".xls": "application/vnd.ms-excel",
    ".xml": "text/xml", ".xz": "application/x-xz", ".yaml": "application/yaml",
    ".yml": "application/yaml", ".zip": "application/zip", ".zst": "application/zstd",
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}  # fmt: skip
# No files are named, so this is the table that Python has built in.
_BUILT_IN = mimetypes.MimeTypes().types_map[True]

_WHITE_SPACE = b"\t\n\x0c\r "
_HTML_TAGS = (
    b"<!DOCTYPE HTML", b"<HTML", b"<HEAD", b"<SCRIPT", b"<IFRAME", b"<H1", b"<DIV", b"<FONT",
    b"<TABLE", b"<A", b"<STYLE", b"<TITLE", b"<B", b"<BODY", b"<BR", b"<P", b"<!--",
)  # fmt: skip
# Patterns for the first bytes; the first that matches decides.
_KINDS = (
    (rb"%PDF-", "application/pdf"),
    (rb"%!PS-Adobe-", "application/postscript"),
    (rb"\xfe\xff..", "text/plain; charset=utf-16be"),
    (rb"\xff\xfe..", "text/plain; charset=utf-16le"),
    (rb"\xef\xbb\xbf.", TEXT),
    (rb"GIF8[79]a", "image/gif"),
    (rb"\x89PNG\r\n\x1a\n", "image/png"),
    (rb"\xff\xd8\xff", "image/jpeg"),
    (rb"BM", "image/bmp"),
    (rb"RIFF....WEBPVP", "image/webp"),
    (rb"\x00\x00\x01\x00", "image/vnd.microsoft.icon"),
    (rb"RIFF....WAVE", "audio/wave"),
    (rb"FORM....AIFF", "audio/aiff"),
    (rb"\.snd", "audio/basic"),
    (rb"OggS\x00", "application/ogg"),
    (rb"MThd\x00\x00\x00\x06", "audio/midi"),
    (rb"ID3", "audio/mpeg"),
    (rb"RIFF....AVI ", "video/avi"),
    (rb"\x1a\x45\xdf\xa3", "video/webm"),
    (rb"Rar!\x1a\x07\x00", "application/x-rar-compressed"),
    (rb"PK\x03\x04", "application/zip"),
    (rb"\x1f\x8b\x08", "application/x-gzip"),
)
_SIGNATURES = re.compile(b"|".join(b"(%s)" % pattern for pattern, _ in _KINDS), re.DOTALL)
_BINARY = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")


def by_name(name: str) -> str:
    """The type that the extension of a file's name stands for; empty if it stands for none."""
    dot = name.rfind(".")
    if dot < 0:
        return ""
    extension = name[dot:].lower()
    if "/" in extension:
        return ""
    kind = _COMMON.get(extension) or _BUILT_IN.get(extension, "")
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind


def by_content(start: bytes) -> str:
    """The type that the first SNIFFED_BYTES of a file look like."""
    data = start[:SNIFFED_BYTES]
    text = data.lstrip(_WHITE_SPACE)
    if text.startswith(b"<"):
        upper = text[:16].upper()
        for tag in _HTML_TAGS:
            if upper.startswith(tag) and text[len(tag) : len(tag) + 1] in (b" ", b">"):
                return "text/html; charset=utf-8"
        if text.startswith(b"<?xml"):
            return "text/xml; charset=utf-8"
    found = _SIGNATURES.match(data)
    if found is not None and found.lastindex is not None:
        return _KINDS[found.lastindex - 1][1]
    if data[4:8] == b"ftyp" and _is_mp4(data):
        return "video/mp4"
    return UNKNOWN if _BINARY.search(data) else TEXT


def _is_mp4(data: bytes) -> bool:
    """Whether some brand in the first box, which is ``ftyp``, begins with ``mp4``."""
    if len(data) < 12:
        return False
    size = int.from_bytes(data[:4], "big")
    if size % 4 or size > len(data):
        return False
    # The four bytes after the first brand are its version.
    return any(data[at : at + 3] == b"mp4" for at in range(8, size, 4) if at != 12)
