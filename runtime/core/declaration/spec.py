"""A part of what an operator declares: frozen, closed; an error names the key, and the nearest right one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from runtime.core.declaration.nearest import nearest

NAME = r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$"
"""Names of model sets, engines and chains: they appear in URLs, labels and Ray's names."""

IDENTIFIER = r"^[a-z][a-z0-9_]*$"
"""Names of steps: a prompt reads them as ``steps.<id>``."""

Name = Annotated[str, Field(pattern=NAME, max_length=63)]
Identifier = Annotated[str, Field(pattern=IDENTIFIER, max_length=63)]


class Spec(BaseModel):
    """Base of all parts of a model set: frozen, and an unknown key is an error with a suggestion."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="wrap")
    @classmethod
    def _refuse_unknown_keys(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Report unknown keys beside other errors, except those of the keys that were probably meant."""
        unknown = [key for key in value if key not in cls.model_fields] if isinstance(value, Mapping) else []
        if not unknown:
            return handler(value)
        errors = [_unknown(str(key), list(cls.model_fields)) for key in unknown]
        found = [InitErrorDetails(type=error, loc=(), input=None) for error in errors]
        meant = {(error.context or {})["nearest"] for error in errors}
        try:
            handler({key: item for key, item in value.items() if key in cls.model_fields})
        except ValidationError as error:
            found += [
                _again(d)
                for d in error.errors(include_url=False)
                if d["loc"][-1:] not in {(m,) for m in meant}
            ]
        raise ValidationError.from_exception_data(cls.__name__, found)


def _again(detail: ErrorDetails) -> InitErrorDetails:
    """Return an error as pydantic takes it, to be raised beside others."""
    kind = PydanticCustomError(
        detail["type"], "{message}", {**detail.get("ctx", {}), "message": detail["msg"]}
    )
    return InitErrorDetails(type=kind, loc=detail["loc"], input=detail["input"])


def _unknown(key: str, valid: Sequence[str]) -> PydanticCustomError:
    return PydanticCustomError(
        "unknown_key",
        "unknown key; valid here: {valid}",
        {"key": key, "valid": ", ".join(valid), "nearest": nearest(key, valid)},
    )


def at(
    key: tuple[str | int, ...], reason: str, suggestion: str | None = None, *, text: bool = False
) -> PydanticCustomError:
    """Return an error that a validator of a whole object raises about one key inside it."""
    context = {"reason": reason, "below": list(key), "nearest": suggestion, "text": text}
    return PydanticCustomError("at", "{reason}", context)
