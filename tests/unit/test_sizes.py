"""Sizes that code stays within, so that it can be read: each exception says why it is one."""

import ast
import statistics
from pathlib import Path

import pytest

RUNTIME = Path(__file__).parents[2] / "runtime"

FILE_LINES = 400
CLASS_LINES = 250
CLASS_FIELDS = 12
FUNCTION_LINES = 45
MOST_FUNCTIONS_LINES = 20
"""Lines that nine functions in ten stay within."""
CORE_PACKAGES = 10

LARGER = {}
"""Classes that are over a limit: the lines and fields that they may have. Who is within goes from here."""

PLAIN = {"Protocol", "NamedTuple", "TypedDict", "Enum", "StrEnum", "IntEnum", "BaseModel", "BaseSettings"}


def trees():
    for path in sorted(RUNTIME.rglob("*.py")):
        text = path.read_text()
        yield path.relative_to(RUNTIME).as_posix(), text, ast.parse(text)


def lines(node):
    return node.end_lineno - node.lineno + 1


def name_of(node):
    match node:
        case ast.Call(func=inner) | ast.Subscript(value=inner):
            return name_of(inner)
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
    return ""


def has_behaviour(node):
    """Say whether a class is more than a value, a table or a port."""
    return "dataclass" not in map(name_of, node.decorator_list) and not PLAIN & set(map(name_of, node.bases))


def fields(node):
    """Return what ``__init__`` assigns to ``self``."""
    functions = ast.FunctionDef | ast.AsyncFunctionDef
    made = [f for f in node.body if isinstance(f, functions) and f.name == "__init__"]
    return {
        each.attr
        for each in (each for f in made for each in ast.walk(f))
        if isinstance(each, ast.Attribute)
        and isinstance(each.ctx, ast.Store)
        and name_of(each.value) == "self"
    }


def classes():
    for path, _, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and has_behaviour(node):
                yield f"{path}:{node.name}", node


@pytest.mark.parametrize("folder", ["runtime", "tests", "benchmarks"])
def test_files(folder):
    paths = (RUNTIME.parent / folder).rglob("*.py")
    counts = {str(path.relative_to(RUNTIME.parent)): len(path.read_text().splitlines()) for path in paths}
    assert {path: count for path, count in counts.items() if count > FILE_LINES} == {}


def functions():
    for path, _, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path}:{node.name}", lines(node)


def test_functions():
    assert {name: count for name, count in functions() if count > FUNCTION_LINES} == {}
    assert statistics.quantiles((count for _, count in functions()), n=10)[-1] <= MOST_FUNCTIONS_LINES


def test_classes():
    sizes = {name: (lines(node), len(fields(node))) for name, node in classes()}
    large = {name: size for name, size in sizes.items() if not fits(size, (CLASS_LINES, CLASS_FIELDS))}
    assert large.keys() == LARGER.keys()
    assert [name for name, size in large.items() if not fits(size, LARGER[name])] == []


def fits(size, limits):
    return all(each <= most for each, most in zip(size, limits, strict=True))


@pytest.mark.parametrize("package", ["core"])
def test_packages(package):
    children = {path.name for path in (RUNTIME / package).iterdir()} - {"__init__.py", "__pycache__"}
    assert len(children) <= CORE_PACKAGES
