"""The rules of the house that no linter knows."""

import ast
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILE_LIMIT_LINES = 400
FUNCTION_LIMIT_LINES = 70
SOURCES = sorted((ROOT / "src").rglob("*.py"))
TESTS = [*sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "bench").rglob("*.py"))]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(tree(path)))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in nodes(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def offending(paths: Iterable[Path], find: Callable[[Path], object]) -> dict[str, object]:
    """What was found in each file in which anything was."""
    assert paths
    return {name(path): found for path in paths if (found := find(path))}


def test_a_file_is_short_enough_to_be_read_at_once() -> None:
    def too_many_lines(path: Path) -> int:
        lines = len(path.read_text().splitlines())
        return lines if lines > FILE_LIMIT_LINES else 0

    assert not offending(SOURCES, too_many_lines)


def test_a_function_is_short_enough_to_be_seen_at_once() -> None:
    def long(path: Path) -> list[str]:
        return [
            f"{each.name}: {each.end_lineno - each.lineno + 1} lines"
            for each in functions(path)
            if each.end_lineno is not None and each.end_lineno - each.lineno >= FUNCTION_LIMIT_LINES
        ]

    assert not offending(SOURCES, long)


def test_our_own_package_is_imported_at_the_top_of_a_file() -> None:
    def hidden(path: Path) -> list[str]:
        return [
            f"{function.name}: line {node.lineno}"
            for function in functions(path)
            for node in ast.walk(function)
            if (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tierce")
            or (
                isinstance(node, ast.Import)
                and any(alias.name.split(".")[0] == "tierce" for alias in node.names)
            )
        ]

    assert not offending(SOURCES, hidden)


def test_a_module_opens_with_what_it_is_for() -> None:
    assert not offending(SOURCES, lambda path: not ast.get_docstring(tree(path)))


def test_no_exception_is_swallowed_whole() -> None:
    broad = {"Exception", "BaseException"}

    def swallowed(path: Path) -> list[int]:
        return [
            node.lineno
            for node in nodes(path)
            if isinstance(node, ast.ExceptHandler)
            and (node.type is None or (isinstance(node.type, ast.Name) and node.type.id in broad))
            and all(isinstance(step, ast.Pass | ast.Continue) for step in node.body)
        ]

    assert not offending(SOURCES, swallowed)


def test_no_test_sleeps_for_long_blindly() -> None:
    """A wait is for a condition with a deadline; only a short poll may sleep for a fixed time."""

    def blind(path: Path) -> list[int]:
        return [
            node.lineno
            for node in nodes(path)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "sleep"
            and node.args
            and isinstance(node.args[0], ast.Constant)
            and isinstance(node.args[0].value, int | float)
            and node.args[0].value > 0.2
        ]

    assert not offending(TESTS, blind)
