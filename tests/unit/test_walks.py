"""The three walks in ``runtime/DESIGN.md``: how a value gets through the rooms, compared with the imports."""

import ast
import itertools
import re
from functools import cache
from pathlib import Path

import pytest

RUNTIME = Path(__file__).parents[2] / "runtime"
DESIGN = (RUNTIME / "DESIGN.md").read_text()
MOST_VISITS = 2
EVERYWHERE = {"errors", "clock", "settings", "loops"}
"""Modules whose names tie nothing together."""


def walks():
    """Each walk's modules, in the order in which the value passes them."""
    section = DESIGN.partition("## Three walks\n")[2].partition("\n## ")[0]
    found = re.findall(r"\*\*(.+?)\*\*.*?```\n(.*?)```", section, re.DOTALL)
    return {name: [line.split()[0] for line in text.splitlines()] for name, text in found}


@cache
def imported_by(module):
    """What a module imports of ours: modules, and (module, name)s, by their names within ``runtime``."""
    path = RUNTIME / f"{module.replace('.', '/')}.py"
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("runtime."):
            source = node.module.removeprefix("runtime.")
            found |= {source, *(f"{source}.{alias.name}" for alias in node.names)}
            found |= {(source, alias.name) for alias in node.names if source not in EVERYWHERE}
    return found


def room(module):
    """A package of ``runtime``; within ``core``, each of its packages is a room."""
    return ".".join(module.split(".")[: 2 if module.startswith("core.") else 1])


def tied(before, module, passed):
    """Whether one imports the other, a module before them imports both, or they share a type."""
    one = module in imported_by(before) or before in imported_by(module)
    handed_on = any({before, module} <= imported_by(each) for each in passed)
    shared = {each for each in imported_by(before) & imported_by(module) if isinstance(each, tuple)}
    return one or handed_on or bool(shared)


# There are three: what a client sends, what an operator deploys, what an engine counts.
def test_walks():
    assert list(walks()) == ["A chat body", "A model set", "A usage count"]


# A value passes no room more than twice: there and back, not to and fro.
@pytest.mark.parametrize("name", ["A chat body", "A model set", "A usage count"])
def test_no_room_is_passed_often(name):
    visits = [key for key, _ in itertools.groupby(map(room, walks()[name]))]
    assert {key: visits.count(key) for key in visits if visits.count(key) > MOST_VISITS} == {}


# Each step of a walk is one that the code can take: by an import, or by a value that both ends know.
@pytest.mark.parametrize("name", ["A chat body", "A model set", "A usage count"])
def test_each_step_is_in_the_code(name):
    modules = walks()[name]
    steps = [
        (before, module)
        for position, (before, module) in enumerate(itertools.pairwise(modules))
        if not tied(before, module, modules[:position])
    ]
    assert steps == []
