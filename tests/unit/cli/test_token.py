"""``tierce token new``: what is printed lets a node accept the token, and gives nothing away."""

import re
import tomllib

import pytest
from click.testing import CliRunner

from tierce.cli.token import command
from tierce.core.errors import BadRequest
from tierce.core.rights import Right, Token, hash_token


def run(*arguments: str) -> str:
    result = CliRunner().invoke(command, ["new", *arguments])
    if isinstance(result.exception, BadRequest):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def the_token(output: str) -> str:
    found = re.findall(r"^  (tierce_[A-Za-z0-9_-]{32})$", output, re.MULTILINE)
    assert len(found) == 1
    return str(found[0])


def test_the_toml_line_holds_the_hash_of_the_token() -> None:
    output = run("--name", "backup", "--rights", "read+write")
    line = next(line for line in output.splitlines() if "tokens =" in line)
    (text,) = tomllib.loads(line.strip())["tokens"]
    assert Token.parse(text) == Token(
        "backup", frozenset({Right.READ, Right.WRITE}), hash_token(the_token(output))
    )


def test_the_environment_line_holds_the_same_entry() -> None:
    output = run("--name", "backup", "--rights", "admin")
    entry = Token.of("backup", frozenset({Right.ADMIN}), the_token(output))
    assert f"  TIERCE_TOKENS={entry}\n" in output


def test_the_token_is_printed_once() -> None:
    output = run("--name", "backup", "--rights", "read")
    assert output.count(the_token(output).removeprefix("tierce_")) == 1


def test_two_tokens_differ() -> None:
    first, second = (the_token(run("--name", "backup", "--rights", "read")) for _ in range(2))
    assert first != second


@pytest.mark.parametrize(
    ("name", "rights", "hint"),
    [
        ("a:b", "read", "letters"),
        ("", "read", "letters"),
        ("a" * 65, "read", "1 to 64"),
        ("backup", "raed", "Did you mean read?"),
        ("backup", "", "read, write, admin"),
    ],
)
def test_bad_names_and_rights_are_refused(name: str, rights: str, hint: str) -> None:
    with pytest.raises(BadRequest) as caught:
        run("--name", name, "--rights", rights)
    assert hint in caught.value.hint


@pytest.mark.parametrize("arguments", [["--name", "backup"], ["--rights", "read"]])
def test_name_and_rights_are_required(arguments: list[str]) -> None:
    assert CliRunner().invoke(command, ["new", *arguments]).exit_code == 2
