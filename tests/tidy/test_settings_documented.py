"""docs/settings.md names every setting, variable, command and exit code there is, and no other."""

import re
import tomllib
from pathlib import Path

import pytest

from tierce.cli.main import COMMANDS, EXIT_CODES, FATAL_CODE
from tierce.core.resolve import OTHER_VARIABLES, resolve
from tierce.core.settings import ENVIRONMENT_PREFIX, SETTINGS
from tierce.doors.cask.environment import CASK_NAMES
from tierce.node import runtime

PAGE = (Path(__file__).parents[2] / "docs" / "settings.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def rows(title: str) -> dict[str, str]:
    """The rows of a section's table, by the word in back quotes that each starts with."""
    found = re.findall(r"^\| `?([^`|]+?)`?(?: \([^|]*\))? \|(.*)$", section(title), re.MULTILINE)
    return {name: rest for name, rest in found if name.strip("-")}


@pytest.mark.parametrize("name", SETTINGS)
def test_setting_is_documented(name: str) -> None:
    setting = SETTINGS[name]
    row = rows("Every setting")[name]
    assert f"`{setting.environment}`" in row
    assert (f"`{setting.flag}`" in row) is setting.is_flag
    assert f" {f'`{setting.default_text}`' if setting.default_text else 'not set'} |" in row
    assert f" {setting.help} |" in row


@pytest.mark.parametrize("name", CASK_NAMES)
def test_cask_variable_is_documented(name: str) -> None:
    assert CASK_NAMES[name].lower() in rows("Settings of a Cask node")[name].lower()


@pytest.mark.parametrize("name", COMMANDS)
def test_command_is_documented(name: str) -> None:
    assert COMMANDS[name].summary in rows("Commands")[f"tierce {name}"]


@pytest.mark.parametrize("code", EXIT_CODES)
def test_exit_code_is_documented(code: int) -> None:
    assert EXIT_CODES[code] in rows("Exit codes")[str(code)].lower()


@pytest.mark.parametrize("name", OTHER_VARIABLES)
def test_other_variable_is_documented(name: str) -> None:
    assert f"`{name}`" in PAGE


def test_nothing_is_documented_that_is_not_there() -> None:
    assert set(rows("Every setting")) - {"Setting"} == set(SETTINGS)
    assert set(rows("Settings of a Cask node")) - {"Variable"} == set(CASK_NAMES)
    assert set(rows("Commands")) - {"Command"} == {f"tierce {name}" for name in COMMANDS}
    known = {each.environment for each in SETTINGS.values()} | set(OTHER_VARIABLES)
    named = set(re.findall(rf"`({ENVIRONMENT_PREFIX}[A-Z_]+)", PAGE))
    assert named - known == {"TIERCE_TEST_"}


def test_the_example_is_accepted() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    found = resolve({}, {}, tomllib.loads(example), "example", Path.read_text)
    assert "file example" in found.origins.values()


def test_the_code_of_a_node_that_can_not_go_on_is_the_one_that_is_documented() -> None:
    assert runtime.FATAL_CODE == FATAL_CODE
