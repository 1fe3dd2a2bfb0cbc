"""YAML that people wrote: each part with its line, each key once, and nothing that takes long."""

import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from runtime.core.declaration.document import MAX_DEPTH, MAX_VALUES, document_of
from runtime.errors import ModelSetError
from runtime.sets.yaml_text import read_yaml


def told(text):
    """Return what is told of a text that is YAML, but holds what it may not."""
    document = read_yaml(text, "a.yaml")
    return str(document.refusal(document.problems)).splitlines()


def refusal(text):
    with pytest.raises(ModelSetError) as caught:
        read_yaml(text, "a.yaml")
    return str(caught.value)


# A key that is written twice is told with both lines, wherever it is; merged keys may be written again.
def test_written_twice():
    assert told("a: 1\nb: {c: 1, d: 2,\n  c: 3}\na: 2\n") == [
        "a.yaml:3: b.c: is written twice; the first time on line 2",
        "a.yaml:4: a: is written twice; the first time on line 1",
    ]
    assert told("1: a\n'1': b\n") == ["a.yaml:2: 1: is written twice; the first time on line 1"]
    merged = read_yaml("x: &x {a: 1, b: 2}\ny: {<<: *x, b: 3}\nz: {<<: [*x, {a: 4, c: 5}]}\n", "a.yaml")
    assert merged.value["y"] == {"a": 1, "b": 3}
    assert merged.value["z"] == {"a": 1, "b": 2, "c": 5}
    assert not merged.problems


# What YAML reads otherwise than it looks is told, with what to do.
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 2026-11-25", "a: 2026-11-25 is read as a date: put it in quotes"),
        ("a: {no: 1}", "a: the key no is read as false: put it in quotes"),
        ("1:30: 1", "the key 1:30 is read as a number: put it in quotes"),
        ("a: .inf", "a: not a finite number"),
        ("a: 99999999999999999999", "a: a number beyond 64 bits"),
        ("a: '" + "1" * 5 + "'\nb: " + "1" * 5000, "b: a number of 5000 characters"),
        ("a: !!binary aGk=", "a: the tag tag:yaml.org,2002:binary means nothing here"),
        ("a: !!int x", "a: x is no int"),
        ("? [a]\n: 1", "a key is text, not a list or a mapping"),
        ("<<: 5", "<< takes a mapping, or a list of them"),
        ('a: "\\0"', "a: text with a character that is none"),
        ("a: !" + "x" * 100_000 + " 1", "..."),
    ],
)
def test_not_what_it_looks(text, says):
    (line,) = told(text)
    assert says in line
    assert len(line) < 700


# What expands into too much, nests too deep or is no YAML is refused as a whole, at once.
@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40)),
            "holds more",
        ),
        ("- 1\n" * 300_000, f"holds more than {MAX_VALUES} values"),
        ("[" * 2000 + "]" * 2000, f"nested more than {MAX_DEPTH} deep"),
        ("{a: " * 200_000, "nested more"),
        ("- " * 200_000, "nested more"),
        ("? " * 200_000, "nested more"),
        ("".join(" " * n + "a:\n" for n in range(1000)), "nested more"),
        ("&a [*a]", "a.yaml:1: the alias *a holds itself"),
        ("a: 1\nb: *c", "a.yaml:2: not valid YAML: found undefined alias"),
        ("a: [", "not valid YAML"),
        ("a: 1\n---\nb: 2", "another document"),
        ("\x01", "not valid YAML"),
    ],
)
def test_refused(text, says):
    begun = time.thread_time()
    assert says in refusal(text)
    assert time.thread_time() - begun < 1.0


# A megabyte of anything is read or refused within a second.
@pytest.mark.parametrize(
    "piece", ["a", "1:", "'", "!", "&a ", "\n", "a: ", "# \n", "|\n ", "%", '"\\', "? ", "\t"]
)
def test_a_megabyte(piece):
    text = piece * (2**20 // len(piece))
    begun = time.thread_time()
    try:
        read_yaml(text, "a.yaml")
    except ModelSetError as refused:
        assert len(str(refused)) < 5000  # noqa: PT017 - whether it is refused is no matter
    assert time.thread_time() - begun < 1.0


_PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
)
_VALUES = st.recursive(
    _PLAIN | st.text("abc 1:-#'\"no", max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("ab1:no ", max_size=4), inner, max_size=4)
    ),
    max_leaves=20,
)


# What is no problem is read as PyYAML's own safe loader reads it, each mapping's parts with a place.
@given(_VALUES)
def test_same_as_the_safe_loader(value):
    text = yaml.safe_dump(value)
    document = read_yaml(text, "a.yaml")
    assert not document.problems
    assert document.value == yaml.safe_load(text)
    assert () in document.places


# A value that came as JSON has the same bounds.
def test_values():
    deep = []
    for _ in range(2000):
        deep = [deep]
    with pytest.raises(ModelSetError, match="nested more than"):
        document_of(deep, "a")
    with pytest.raises(ModelSetError, match="holds more than"):
        document_of([[0] * 300] * 300, "a")
    document = document_of({1: float("nan"), False: 2, "a": 2**64, "b": "\ud800", "c": object()}, "a")
    assert document.value == {"1": None, "a": None, "b": None, "c": None}
    assert len(document.problems) == 5
