"""``/openapi.json``: every body, parameter, answer and error of the routes that there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import cache
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from runtime.api.answers import ErrorAnswer

_Schema = dict[str, Any]

_REF = "#/components/schemas/{model}"
_JSON = "application/json"


def header(name: str, description: str, **schema: Any) -> _Schema:
    """Return the description of a request's header."""
    of_type = {"type": "string", **schema}
    return {"name": name, "in": "header", "required": False, "description": description, "schema": of_type}


IF_MATCH = header("if-match", "The etag of the releases that this was decided by, or *.", maxLength=64)
IF_NONE_MATCH = header("if-none-match", "The etag that is known: 304 if nothing has changed.", maxLength=64)
_ACTOR = header("x-interlock-actor", "Who asks, for the audit log.", maxLength=128)

_ERRORS = {
    400: "The request is wrong; param names the field.",
    401: "An API key is needed, and this is none that is valid.",
    403: "Not from here, or not with this key.",
    404: "There is no such thing.",
    405: "The path has no such method; the allow header names those that it has.",
    408: "The body did not come in time.",
    409: "It does not fit the state of the releases.",
    412: "The releases have changed since the edition that if-match names.",
    413: "The body is too large.",
    415: "While no key is needed, a body must be application/json.",
    422: "The model set is wrong; param names the key.",
    428: "if-match is needed.",
    429: "A limit or a budget has no room for it.",
    500: "A mistake of Interlock's; the gateway's log says which.",
    503: "Not now; retry-after says when to retry.",
    504: "The chain's deadline has passed.",
}
_OF_CLIENTS = (400, 401, 403, 404, 408, 413, 415, 429, 503, 504)
_OF_OPERATORS = (400, 403, 404, 408, 409, 412, 413, 415, 422, 428, 503)
_OF_PROBES = (503,)


def takes(body: Any, *headers: _Schema) -> _Schema:
    """Return what a route adds to its description: the body and the headers that it parses itself."""
    extra: _Schema = {"parameters": list(headers)} if headers else {}
    if body is not None:
        schema = deepcopy(_schema_of(body))  # the description is completed in place
        extra["requestBody"] = {
            "required": bool(schema.get("required")),
            "content": {_JSON: {"schema": schema}},
        }
    return extra


@cache
def _schema_of(body: Any) -> _Schema:
    return TypeAdapter(body).json_schema(ref_template=_REF)


def described(app: FastAPI) -> _Schema:
    """Return the description of all routes of ``app``."""
    schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
    parts = schema.setdefault("components", {}).setdefault("schemas", {})
    parts |= _lifted(ErrorAnswer.model_json_schema(ref_template=_REF), "ErrorAnswer", parts)
    for path, _, operation in _operations(schema):
        _complete(path, operation, parts)
    for unused in ("HTTPValidationError", "ValidationError"):
        parts.pop(unused, None)
    bearer = {"type": "http", "scheme": "bearer"}
    schema["components"]["securitySchemes"] = {"ApiKey": bearer, "AdminKey": bearer}
    return schema


def for_clients(schema: Mapping[str, Any]) -> _Schema:
    """Return the part of the description that is of clients' routes and probes."""
    paths = {path: methods for path, methods in schema["paths"].items() if not _is_of_operators(path)}
    return {**schema, "paths": paths}


def _operations(schema: Mapping[str, Any]) -> Iterator[tuple[str, str, _Schema]]:
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def _is_of_operators(path: str) -> bool:
    return path.startswith("/admin/") or path == "/metrics"


def _complete(path: str, operation: _Schema, parts: _Schema) -> None:
    """Add what holds for every route of its kind: who may call it, which headers it reads, how it fails."""
    statuses: tuple[int, ...] = _OF_PROBES
    kind = ""
    if _is_of_operators(path):
        statuses, kind = _OF_OPERATORS, "AdminKey"
        operation.setdefault("parameters", []).append(_ACTOR)
    elif path.startswith("/v1/"):
        statuses, kind = _OF_CLIENTS, "ApiKey"
    if kind:
        operation["security"] = [{kind: []}, {}]
    answers = operation["responses"]
    answers.pop("422", None)  # FastAPI's own error form, which is never sent
    for status in (*statuses, 405, 500):
        answers[str(status)] = {
            "description": _ERRORS[status],
            "content": {_JSON: {"schema": {"$ref": _REF.format(model="ErrorAnswer")}}},
        }
    body = operation.get("requestBody", {}).get("content", {}).get(_JSON)
    if body is not None:
        name = body["schema"].get("title", "Body")
        parts |= _lifted(body["schema"], name, parts)
        body["schema"] = {"$ref": _REF.format(model=name)}


def _lifted(schema: _Schema, name: str, parts: Mapping[str, Any]) -> _Schema:
    """Return a schema and those that it refers to, by the names under which it does."""
    inner = schema.pop("$defs", {})
    return {name: schema, **{key: definition for key, definition in inner.items() if key not in parts}}
