"""The flags of a dtfc node, as Tierce's settings.

Names and defaults are those of dtfc, which has no variables of its own. What Tierce's variables and
file set counts where no flag does, and before dtfc's defaults. Where Tierce does otherwise on purpose,
a note says so to the operator. Pure: the reading of the one file that a flag names is an argument.
Values are checked by ``core/resolve.py`` where it can.
"""

from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import NamedTuple

from tierce.core.errors import BadRequest
from tierce.core.resolve import Given
from tierce.core.wording import quoted


class Flag(NamedTuple):
    """What dtfc has if a flag is not given, and what becomes of it."""

    default: str
    meaning: str


FLAGS: dict[str, Flag] = {
    "port": Flag("8080", "`listen`, on all addresses"),
    "basedir": Flag("", "`data`; required"),
    "temp": Flag("", "nothing: what is on its way rests below the base directory"),
    "log": Flag("", "the file that the log is appended to, in place of standard error"),
    "provider": Flag("local", "must be `local`"),
    "deny": Flag("", "`dtfc_deny`"),
    "me": Flag("", "`dtfc_me`"),
    "melist": Flag("", "`dtfc_me` is its first line that is not blank, without `--me`"),
    "peerlist": Flag("", "`dtfc_peer_list`"),
}

OPEN_RIGHTS = "read+write"
NO_PEERS = "no --peerlist is given: nothing is loaded from peers, and --me is not needed."
_DEFAULT = "default of `tierce dtfc`"


def from_dtfc_flags(
    flags: Mapping[str, str | None], elsewhere: Set[str], read_text: Callable[[Path], str]
) -> tuple[dict[str, Given], list[str]]:
    """The flags for ``load_settings``, and notes for the operator.

    ``flags`` are those of FLAGS that were given; an empty one counts as not given, as in dtfc.
    ``elsewhere`` names the settings that Tierce's own variables and file set. ``read_text`` raises
    OSError. Raises BadRequest for what is missing or at odds.
    """
    given = {
        name: Given(value, f"flag --{name}")
        for name in FLAGS
        if (value := (flags.get(name) or "").strip())
    }
    notes: list[str] = []
    provider = given.get("provider")
    if provider is not None and provider.value != FLAGS["provider"].default:
        raise BadRequest(
            f"flag --provider: {quoted(str(provider.value))} is not known",
            hint="There is only local, as in dtfc.",
        )
    if "temp" in given:
        notes.append(
            "--temp is not used: what is on its way rests below the base directory, so that it need "
            "not be copied."
        )
    found = _base(given, elsewhere) | _listen(given, elsewhere, notes)
    if "private" not in elsewhere:
        found["private"] = Given("127.0.0.1:0", _DEFAULT)
    if "deny" in given:
        found["dtfc_deny"] = given["deny"]
    return found | _peers(given, elsewhere, read_text, notes), notes


def _base(given: Mapping[str, Given], elsewhere: Set[str]) -> dict[str, Given]:
    if "basedir" in given:
        return {"data": given["basedir"]}
    if "data" in elsewhere:
        return {}
    raise BadRequest(
        "the base directory is not set", hint="Name it with --basedir DIR; it is made if missing."
    )


def _listen(given: Mapping[str, Given], elsewhere: Set[str], notes: list[str]) -> dict[str, Given]:
    """On all addresses, and open to everyone, as dtfc."""
    if "port" not in given and "listen" in elsewhere:
        return {}
    port = given.get("port") or Given(FLAGS["port"].default, _DEFAULT)
    address = f"0.0.0.0:{port.value}"
    found = {"listen": Given([f"dtfc={address}"], port.origin)}
    if elsewhere & {"tokens", "anonymous_rights"}:
        return found
    found["anonymous_rights"] = Given(OPEN_RIGHTS, "dtfc, where everyone has them")
    notes.append(
        f"everyone who reaches {address} may read, put and delete, as in dtfc; set TIERCE_TOKENS to "
        "ask for tokens."
    )
    return found


def _peers(
    given: Mapping[str, Given],
    elsewhere: Set[str],
    read_text: Callable[[Path], str],
    notes: list[str],
) -> dict[str, Given]:
    """The list of peers, and this node's own URL, which only counts among them."""
    found = {}
    me = given.get("me") or _first_line(given.get("melist"), read_text)
    if me is not None:
        found["dtfc_me"] = me
    if "peerlist" in given:
        found["dtfc_peer_list"] = given["peerlist"]
        if me is None and "dtfc_me" not in elsewhere:
            raise BadRequest(
                "the node's own URL is not set, by which it knows itself in the peer list",
                hint="Name it with --me URL, as it stands in the list, or with --melist FILE.",
            )
    elif not elsewhere & {"dtfc_peer_list", "dtfc_peers"}:
        notes.append(NO_PEERS)
    return found


def _first_line(file: Given | None, read_text: Callable[[Path], str]) -> Given | None:
    if file is None:
        return None
    try:
        lines = read_text(Path(str(file.value))).splitlines()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise BadRequest(
            f"{file.origin}: {quoted(str(file.value))} can't be read: {reason}",
            hint="Its first line is this node's own URL.",
        ) from error
    line = next(filter(None, map(str.strip, lines)), "")
    return Given(line, f"the file {file.value}") if line else None
