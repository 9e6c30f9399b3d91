"""Settings on the command line: options made from their table, and the search for the TOML file.

Options are plain text here; ``core/resolve.py`` reads them, so that a bad value is refused in the
same words wherever it stands.
"""

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from tierce.core.errors import BadRequest
from tierce.core.resolve import Resolved, resolve
from tierce.core.settings import SETTINGS, Setting
from tierce.core.wording import quoted

F = TypeVar("F", bound=Callable[..., Any])

USUAL_FILES = (Path("tierce.toml"), Path("/etc/tierce/tierce.toml"))


def settings_options(function: F) -> F:
    """Give a command ``--config`` and an option for each setting that may be a flag.

    The command gets ``config: Path | None`` and, under the settings' names, what was given, ready
    to be passed to :func:`load_settings` as ``flags``.
    """
    for setting in reversed(SETTINGS.values()):
        if setting.is_flag:
            function = _option(setting)(function)
    return click.option(
        "--config",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="TOML file with settings.  [default: ./tierce.toml or /etc/tierce/tierce.toml, "
        "if there]",
    )(function)


def load_settings(
    config: Path | None, flags: Mapping[str, object], environ: Mapping[str, str]
) -> Resolved:
    """Find the TOML file, then put flags, environment and file together.

    The file is ``config``, else the one that TIERCE_CONFIG names, else the first of USUAL_FILES
    that is there, else none. Raises BadRequest when anything is wrong.
    """
    named = config or environ.get("TIERCE_CONFIG")
    if named:
        file = _read_toml(Path(named))
        if file is None:
            origin = "--config" if config else "TIERCE_CONFIG"
            raise BadRequest(
                f"the file {quoted(str(named))} that {origin} names is not there",
                hint="Correct the path, or leave it out to go without a file.",
            )
        return resolve(flags, environ, file, str(named), _read_text)
    for path in USUAL_FILES:
        file = _read_toml(path)
        if file is not None:
            return resolve(flags, environ, file, str(path), _read_text)
    return resolve(flags, environ, {}, "", _read_text)


def _option(setting: Setting) -> Callable[[F], F]:
    text = setting.help
    if setting.default_text:
        text += f"  [default: {setting.default_text}]"
    if setting.kind.switch:
        both = f"{setting.flag}/--no-{setting.flag.removeprefix('--')}"
        return click.option(both, setting.name, default=None, help=text)
    return click.option(
        setting.flag,
        setting.name,
        type=str,
        metavar=setting.kind.metavar,
        multiple=setting.kind.many,
        help=text + ("  May be repeated." if setting.kind.many else ""),
    )


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _read_toml(path: Path) -> dict[str, object] | None:
    """The file's keys and values, or None if there is no such file."""
    try:
        return tomllib.loads(_read_text(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise BadRequest(
            f"can't read {path}: {error.strerror}", hint="Correct it, or name another by --config."
        ) from error
    except ValueError as error:  # from the TOML and from the UTF-8 decoder
        raise BadRequest(
            f"{path} is not TOML: {error}",
            hint='Write one setting a line, such as data = "/srv/tierce"; text goes in quotes.',
        ) from error
