"""Reading a model set that an older Interlock has taken: today's rules are for what is wanted today.

What a release was made of is history, and its engines may run: it must not become unreadable by a key that
has another name now, or by a rule that was made since. So nothing is refused here that can be read.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

_Model = TypeVar("_Model", bound=BaseModel)


def as_it_was(kind: type[_Model], value: Any) -> _Model:
    """Return ``value``, which ``kind`` was dumped to once, as ``kind`` is now.

    Keys that it does not have any more are left out; parts that it does not allow any more stand at their
    defaults, if there are any; and rules about several parts together are not applied.

    Raises:
        ValueError: a part is missing, or of another kind, that nothing stands in for.

    """
    if not isinstance(value, Mapping):
        raise ValueError(f"a {kind.__name__} is a mapping, not {type(value).__name__}")  # noqa: TRY004
    parts = {}
    for name, field in kind.model_fields.items():
        if name not in value:
            if field.is_required():
                raise ValueError(f"{kind.__name__} has no {name}")
            continue
        try:
            parts[name] = part_as_it_was(_declared(field), value[name])
        except ValueError:  # pydantic's errors are, too
            if field.is_required():
                parts[name] = _plain(field, value[name])
    return kind.model_construct(**parts)


def _declared(field: FieldInfo) -> Any:
    """Return the field's type with what is declared beside it, which pydantic has taken apart."""
    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


def _plain(field: FieldInfo, value: Any) -> Any:
    """Return a value that nothing stands in for, and that only a rule is against."""
    if field.annotation in (str, int, float) and type(value) is field.annotation:
        return value
    raise ValueError(f"it cannot be {value!r:.80}")


def part_as_it_was(kind: Any, value: Any) -> Any:
    """Return ``value`` as a part of this kind. Raises ValueError, as ``as_it_was`` does."""
    plain = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    origin, arguments = get_origin(plain), get_args(plain)
    if isinstance(plain, type) and origin is None and issubclass(plain, BaseModel):
        return as_it_was(plain, value)
    if origin is dict and isinstance(value, Mapping):
        return {key: part_as_it_was(arguments[1], item) for key, item in value.items()}
    if origin in (list, tuple) and isinstance(value, list):
        return origin(part_as_it_was(arguments[0], item) for item in value)
    if origin in (Union, types.UnionType):
        return _of_union(plain, value)
    return TypeAdapter(kind).validate_python(value)


def _of_union(kind: Any, value: Any) -> Any:
    """Return ``value`` as the first of several kinds that it can be read as."""
    if value is None:
        return None
    errors = []
    for possible in get_args(kind):
        try:
            if possible is not types.NoneType and _is_meant(possible, value):
                return part_as_it_was(possible, value)
        except (ValueError, ValidationError) as error:
            errors.append(str(error))
    raise ValueError("; ".join(errors) or f"no kind of it is {value!r:.80}")


def _is_meant(kind: Any, value: Any) -> bool:
    """Say whether ``value`` names this kind, where kinds have names."""
    if not (isinstance(kind, type) and issubclass(kind, BaseModel) and "kind" in kind.model_fields):
        return True
    named = value.get("kind") if isinstance(value, Mapping) else None
    return named in get_args(kind.model_fields["kind"].annotation)
