"""How a setting is declared: as a field of a dataclass that knows its kind, its default and its help."""

from collections.abc import Callable
from dataclasses import field, fields
from typing import Any, NamedTuple, TypeVar, cast

from tierce.core.kinds import Kind

T = TypeVar("T")

_KEY = "setting"
ENVIRONMENT_PREFIX = "TIERCE_"


class Setting(NamedTuple):
    """What is known of one setting. ``help`` is a sentence that names the unit."""

    name: str
    kind: Kind[Any]
    help: str
    default_text: str
    secret: bool
    is_flag: bool
    in_file: bool

    @property
    def flag(self) -> str:
        """``--blob-limit-bytes`` for ``blob_limit_bytes``."""
        return "--" + self.name.replace("_", "-")

    @property
    def environment(self) -> str:
        """``TIERCE_BLOB_LIMIT_BYTES`` for ``blob_limit_bytes``."""
        return ENVIRONMENT_PREFIX + self.name.upper()

    def shown(self, value: object) -> str:
        """The value as text, with what is secret in it masked."""
        return self.kind.show(value)


def declared(
    default: T | Callable[[], T],
    kind: Kind[T],
    help_: str,
    *,
    default_text: str | None = None,
    secret: bool = False,
    is_flag: bool = True,
    in_file: bool = True,
) -> T:
    """Declare a field. Typed as its value, as ``dataclasses.field`` is."""
    factory = default if callable(default) else lambda: default
    if default_text is None:
        default_text = kind.show(factory())
    setting = Setting("", kind, help_, default_text, secret, is_flag, in_file)
    return field(default_factory=factory, repr=not secret, metadata={_KEY: setting})


def settings_of(kind: type[Any]) -> dict[str, Setting]:
    """The settings that are the fields of a dataclass, by their names."""
    return {
        each.name: cast(Setting, each.metadata[_KEY])._replace(name=each.name)
        for each in fields(kind)
    }
