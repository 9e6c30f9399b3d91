"""Where the programs of SOS find the list of blob servers: a flag, or files, named or the usual ones."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from tierce.client.sos_config import USUAL_FILES, Listed, joined, parse_file, parse_list
from tierce.core.errors import BadRequest
from tierce.core.wording import quoted

F = TypeVar("F", bound=Callable[..., Any])


def servers_option(function: F) -> F:
    """Give a command ``--blob-server``, as ``blob_server: str | None``."""
    return click.option(
        "--blob-server",
        metavar="URL,URL",
        help="Blob servers, in place of those in the files.",
    )(function)


def config_option(function: F) -> F:
    """Give a command ``--config``, as ``config: tuple[Path, ...]``."""
    return click.option(
        "--config",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="File with a list of blob servers.  May be repeated.  "
        f"[default: {' and '.join(USUAL_FILES)}]",
    )(function)


def listed_servers(
    blob_server: str | None, config: Sequence[Path], environ: Mapping[str, str]
) -> tuple[Listed, str]:
    """The list, and where it was found. Without files it is empty. Raises BadRequest.

    Only files that are named must be there. ``~`` is the HOME of ``environ``.
    """
    if blob_server:
        return parse_list(blob_server), "flag --blob-server"
    found: dict[str, Listed] = {}
    for path in config:
        text = _read(path)
        if text is None:
            raise BadRequest(
                f"the file {quoted(str(path))} that --config names is not there",
                hint="Correct the path, or leave it out for the usual files.",
            )
        found[str(path)] = parse_file(text, str(path))
    for name in () if config else USUAL_FILES:
        home = environ.get("HOME", "")
        if name.startswith("~/") and not home:
            continue
        text = _read(Path(name.replace("~", home, 1) if name.startswith("~/") else name))
        if text is not None:
            found[name] = parse_file(text, name)
    return joined(found.values()), f"file {' and '.join(found)}"


def _read(path: Path) -> str | None:
    """The text of a file, or None if there is no such file."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        reason = os.strerror(error.errno or 0) if isinstance(error, OSError) else "it is not text"
        raise BadRequest(
            f"can't read {path}: {reason}", hint="Correct it, or name another by --config."
        ) from error
