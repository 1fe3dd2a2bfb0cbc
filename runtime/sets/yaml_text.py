"""Reading YAML that people wrote: bounded, with the line of each part, and with each key once.

PyYAML's safe loader takes the last of two equal keys, expands aliases without a limit, nests as deep as the
stack, and makes dates and binary data of plain words. Here its parser and its rules for plain scalars are
used, and nothing else of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import yaml

from runtime.core.declaration.document import (
    MAX_DEPTH,
    MAX_VALUES,
    Document,
    Key,
    Place,
    Problem,
    kind_of,
    too_deep,
    too_many,
    unfit,
)
from runtime.errors import ModelSetError

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The C library's parser is ten times as fast; a wheel for an odd machine may lack it."""

_MERGE = "tag:yaml.org,2002:merge"
_TEXT = "tag:yaml.org,2002:str"
_YAML = "tag:yaml.org,2002:"
_SCALARS = {"null", "bool", "int", "float"}
_COLLECTIONS = {"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}
_LONGEST_SCALAR = 64
"""Of a scalar that is no text. Python takes its time over numbers of a million digits."""


def read_yaml(text: str, source: str) -> Document:
    """Return the one document in ``text``.

    Raises:
        ModelSetError: not YAML, more than one document, nested too deep, or too large once it is expanded.

    """
    try:
        _bound(text, source)
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            reading = _Reading(loader)
            value = None if root is None else reading.value(root, ())
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else None
        reason = f"not valid YAML: {error.problem or error.context}"
        raise ModelSetError(source, "", reason, line=line) from error
    except yaml.YAMLError as error:
        raise ModelSetError(source, "", f"not valid YAML: {str(error).splitlines()[0]}") from error
    return Document(source, value, reading.places, tuple(reading.problems))


# -- bounds ---------------------------------------------------------------------------------------


@dataclass
class _Open:
    """A collection whose end has not come: its anchor, and what is in it so far."""

    anchor: str | None
    values: int = 1
    depth: int = 1


@dataclass
class _Measured:
    """How large and how deep what anchors name is, once all in it is expanded."""

    anchors: dict[str, tuple[int, int]] = field(default_factory=dict)
    open: list[_Open] = field(default_factory=list)
    values: int = 0

    def add(self, anchor: str | None, values: int, depth: int) -> None:
        """Count a whole value."""
        if anchor is not None:
            self.anchors[anchor] = (values, depth)
        if self.open:
            around = self.open[-1]
            around.values += values
            around.depth = max(around.depth, depth + 1)
        self.values = self.open[-1].values if self.open else values


def _bound(text: str, source: str) -> None:
    """Refuse text that would expand into too much. The parser's events suffice, made one at a time."""
    measured = _Measured()
    for event in yaml.parse(text, Loader=_Loader):
        match event:
            case yaml.AliasEvent(anchor=name):
                if any(around.anchor == name for around in measured.open):
                    raise ModelSetError(source, "", f"the alias *{name} holds itself", line=_line(event))
                measured.add(None, *measured.anchors.get(str(name), (1, 1)))
            case yaml.ScalarEvent(anchor=name):
                measured.add(name, 1, 1)
            case yaml.CollectionStartEvent(anchor=name):
                measured.open.append(_Open(name))
            case yaml.CollectionEndEvent():
                ended = measured.open.pop()
                measured.add(ended.anchor, ended.values, ended.depth)
        _within(measured, source)


def _line(at: Any) -> int:
    """Return the line, from 1, on which an event or a node begins."""
    return int(at.start_mark.line) + 1


def _within(measured: _Measured, source: str) -> None:
    depth = len(measured.open) + (measured.open[-1].depth if measured.open else 0)
    if depth > MAX_DEPTH + 2:
        raise too_deep(source)
    if measured.values + sum(around.values for around in measured.open[:-1]) > MAX_VALUES:
        raise too_many(source)


# -- values ---------------------------------------------------------------------------------------


class _Reading:
    """One document's nodes on their way to values."""

    def __init__(self, loader: Any) -> None:
        self.places: dict[Key, Place] = {}
        self.problems: list[Problem] = []
        self._loader = loader

    def value(self, node: yaml.Node, key: Key) -> Any:
        """Return the node's value; what it may not be is a problem, and null instead."""
        line = _line(node)
        self.places[key] = Place(line)
        if isinstance(node, yaml.ScalarNode):
            value, reason = self._scalar(node)
            if reason is not None:
                self._wrong(key, reason, node)
            elif node.tag != _TEXT:
                self.places[key] = Place(line, node.value)
            return value
        if node.tag not in _COLLECTIONS:
            self._wrong(key, f"the tag {node.tag} means nothing here", node)
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, key)
        return [self.value(item, (*key, position)) for position, item in enumerate(node.value)]

    def _wrong(self, key: Key, reason: str, node: yaml.Node) -> None:
        self.problems.append(Problem(key, reason, line=_line(node)))

    def _scalar(self, node: yaml.ScalarNode) -> tuple[Any, str | None]:
        """Return a scalar's value, or why it can have none."""
        kind = node.tag.removeprefix(_YAML)
        if node.tag == _TEXT:
            value = node.value
        elif kind == "timestamp":
            return None, f"{node.value} is read as a date: put it in quotes"
        elif kind not in _SCALARS:
            return None, f"the tag {node.tag} means nothing here"
        elif len(node.value) > _LONGEST_SCALAR:
            return None, f"a number of {len(node.value)} characters"
        else:
            try:
                value = self._loader.construct_object(node)
            except (ValueError, KeyError, yaml.constructor.ConstructorError):
                return None, f"{node.value} is no {kind}"
        reason = unfit(value)
        return (value, None) if reason is None else (None, reason)

    def _mapping(self, node: yaml.MappingNode, key: Key) -> dict[str, Any]:
        found = self._merged(node, key)
        lines: dict[str, int] = {}
        for name_node, item in node.value:
            name = None if name_node.tag == _MERGE else self._key(name_node, key)
            if name is None:
                continue
            line = _line(name_node)
            if name in lines:
                reason = f"is written twice; the first time on line {lines[name]}"
                self.problems.append(Problem((*key, name), reason, line=line, first=True))
                continue
            lines[name] = line
            found[name] = self.value(item, (*key, name))
            self.places[*key, name] = Place(line, self.places[*key, name].plain)
        return found

    def _merged(self, node: yaml.MappingNode, key: Key) -> dict[str, Any]:
        """Return what ``<<`` brings: of several mappings the first counts."""
        found: dict[str, Any] = {}
        for name_node, item in node.value:
            if name_node.tag != _MERGE:
                continue
            for source in item.value if isinstance(item, yaml.SequenceNode) else [item]:
                if isinstance(source, yaml.MappingNode):
                    found = {**self._mapping(source, key), **found}
                else:
                    self._wrong(key, "<< takes a mapping, or a list of them", source)
        return found

    def _key(self, node: yaml.Node, key: Key) -> str | None:
        """Return a key as text: JSON, which the journal and the wire speak, has no other."""
        if not isinstance(node, yaml.ScalarNode):
            self._wrong(key, "a key is text, not a list or a mapping", node)
            return None
        value, reason = self._scalar(node)
        if reason is not None:
            self._wrong(key, f"a key: {reason}", node)
        elif isinstance(value, str):
            return value
        elif type(value) is int and str(value) == node.value:
            return str(value)
        else:
            self._wrong(key, f"the key {node.value} is read as {kind_of(value)}: put it in quotes", node)
        return None


__all__ = ["read_yaml"]
