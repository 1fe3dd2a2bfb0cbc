"""The HTTP application of a gateway."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from runtime.api.admin import Operator, admin_routes
from runtime.api.admin_keys import key_routes
from runtime.api.auth import Callers
from runtime.api.bodies import read_body
from runtime.api.budgets import BudgetKeeper, budget_routes
from runtime.api.chat import ChatResponse, request_id_of, session_of
from runtime.api.errors import body_of, error_object, headers_of, status_of
from runtime.api.keys import Keys
from runtime.api.metrics import MetricsReader, metrics_routes
from runtime.api.usage import UsageReader, usage_routes
from runtime.clock import Clock
from runtime.core.routes import RoutedRelease
from runtime.errors import InterlockError, UnknownModel
from runtime.settings import Settings
from runtime.traffic.admission import Admission


def build_app(
    admission: Admission,
    operator: Operator,
    settings: Settings,
    keys: Keys,
    usage: UsageReader,
    budgets: BudgetKeeper,
    clock: Clock,
    metrics: MetricsReader,
) -> FastAPI:
    """Return the routes of one gateway. ``operator`` is the manager."""
    app = FastAPI(title="Interlock", docs_url=None, redoc_url=None)
    app.add_exception_handler(InterlockError, _on_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(RequestValidationError, _on_http_error)
    app.add_exception_handler(Exception, _on_unexpected)
    _add_openai_routes(app, admission, settings, Callers(keys, clock, settings))
    _add_health_routes(app, admission)
    for router in (
        admin_routes(operator, settings),
        key_routes(keys, settings, clock),
        usage_routes(usage, budgets, settings),
        budget_routes(budgets, settings, admission),
        metrics_routes(metrics, settings),
    ):
        app.routes.extend(router.routes)  # `include_router` would make every route a second time
    return app


def _add_openai_routes(app: FastAPI, admission: Admission, settings: Settings, callers: Callers) -> None:
    @app.get("/v1/models")
    async def list_models(request: Request) -> dict[str, Any]:
        await callers.caller_of(request)
        live = admission.live()
        return {"object": "list", "data": [_model(name, live) for name in live.chains]}

    @app.get("/v1/models/{model}")
    async def get_model(model: str, request: Request) -> dict[str, Any]:
        await callers.caller_of(request)
        live = admission.live()
        if model not in live.chains:
            message = f"the model {model!r} does not exist; there is: {', '.join(live.chains)}"
            raise UnknownModel(message, param="model", code="model_not_found")
        return _model(model, live)

    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> Response:
        arrived = admission.arrival()
        try:
            caller, session = await callers.caller_of(request), session_of(request)
            raw = await read_body(request, settings.max_body_bytes)
        except InterlockError as error:
            admission.turned_away(error)
            raise
        return ChatResponse(admission, raw, request_id_of(request), caller, arrived, session)


def _add_health_routes(app: FastAPI, admission: Admission) -> None:
    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> dict[str, Any]:
        live = admission.live()
        return {"status": "ready", "release": live.number, "model_set": live.model_set}


def _model(name: str, live: RoutedRelease) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "interlock",
        "interlock": {"release": live.number, "model_set": live.model_set, "name": live.name},
    }


async def _on_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, InterlockError)  # noqa: S101 - registered for this class alone
    return JSONResponse(body_of(error), status_of(error), headers_of(error))


async def _on_disconnect(_request: Request, _error: Exception) -> Response:
    """End the request of a client that went away while it sent its body; nobody reads this answer."""
    return Response(status_code=499)


async def _on_unexpected(request: Request, _error: Exception) -> JSONResponse:
    """Answer a mistake of ours in OpenAI's shape; the server logs it, and clients do not learn what."""
    message = f"{request.method} {request.url.path} broke inside Interlock; the gateway's log says why"
    return JSONResponse({"error": error_object(message, "server_error")}, 500)


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    status = error.status_code if isinstance(error, HTTPException) else 400
    message = (
        f"{request.method} {request.url.path}: {error.detail if isinstance(error, HTTPException) else error}"
    )
    return JSONResponse({"error": error_object(message, "invalid_request_error")}, status)
