"""The rules of the house that no linter knows."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILE_LIMIT_LINES = 400
FUNCTION_LIMIT_LINES = 70
SOURCES = sorted((ROOT / "src").rglob("*.py"))
ALL = SOURCES + sorted((ROOT / "tests").rglob("*.py")) + sorted((ROOT / "bench").rglob("*.py"))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_a_file_is_short_enough_to_be_read_at_once(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= FILE_LIMIT_LINES


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_a_function_is_short_enough_to_be_seen_at_once(path: Path) -> None:
    long = [
        f"{each.name}: {each.end_lineno - each.lineno + 1} lines"
        for each in functions(path)
        if each.end_lineno is not None and each.end_lineno - each.lineno >= FUNCTION_LIMIT_LINES
    ]
    assert not long


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_our_own_package_is_imported_at_the_top_of_a_file(path: Path) -> None:
    hidden = [
        f"{function.name}: line {node.lineno}"
        for function in functions(path)
        for node in ast.walk(function)
        if (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tierce")
        or (
            isinstance(node, ast.Import)
            and any(alias.name.split(".")[0] == "tierce" for alias in node.names)
        )
    ]
    assert not hidden


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_a_module_opens_with_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_no_exception_is_swallowed_whole(path: Path) -> None:
    broad = {"Exception", "BaseException"}
    swallowed = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or (isinstance(node.type, ast.Name) and node.type.id in broad))
        and all(isinstance(step, ast.Pass | ast.Continue) for step in node.body)
    ]
    assert not swallowed


@pytest.mark.parametrize("path", ALL, ids=name)
def test_no_test_or_source_sleeps_for_long_blindly(path: Path) -> None:
    """A wait is for a condition with a deadline; only a short poll may sleep for a fixed time."""
    blind = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "sleep"
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, int | float)
        and node.args[0].value > 0.2
        and not name(path).startswith("src")
    ]
    assert not blind
