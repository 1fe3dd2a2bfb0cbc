"""The HTTP application of a gateway."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match, Route

from runtime.api.admin import Operator, admin_routes
from runtime.api.admin_budgets import BudgetKeeper, budget_routes
from runtime.api.admin_events import event_routes
from runtime.api.admin_keys import key_routes
from runtime.api.admin_usage import UsageReader, usage_routes
from runtime.api.answering import ChainResponse
from runtime.api.answers import Alive, ChatCompletion, Model, ModelList, Ready
from runtime.api.auth import Callers, actor_of
from runtime.api.bodies import read_body, refusal_of
from runtime.api.chat import read_chat_request
from runtime.api.door import ClientCors, Door
from runtime.api.errors import body_of, error_object, headers_of, status_of
from runtime.api.headers import REQUEST_ID, SESSION, request_id_of, session_of
from runtime.api.keys import Keys
from runtime.api.metrics import MetricsReader, metrics_routes
from runtime.api.openapi import described, for_clients, header, takes
from runtime.api.trace_context import trace_context_of
from runtime.clock import Clock
from runtime.core.requests.chat_body import ChatBody
from runtime.core.requests.json_body import shown
from runtime.core.swap.routes import RoutedRelease
from runtime.errors import AccessDenied, InterlockError, UnknownModel
from runtime.settings import Settings
from runtime.traffic.admission import Admission
from runtime.walking.context import RequestContext

_SHOWN = 80
_CLIENT_ROUTES = "POST /v1/chat/completions, GET /v1/models, GET /v1/models/{model}"

_CHAT_HEADERS = (
    header(REQUEST_ID, "The client's own id of the request; another is made if it is none."),
    header(SESSION, "The conversation that the request belongs to.", minLength=1, maxLength=128),
    header("traceparent", "The trace that the request is a part of (W3C Trace Context)."),
)


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
    app = FastAPI(title="Interlock", openapi_url=None, redirect_slashes=False)
    app.add_exception_handler(InterlockError, _on_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(RequestValidationError, _on_wrong_parameter)
    app.add_exception_handler(Exception, _on_unexpected)
    callers = Callers(keys, clock, settings)
    _add_openai_routes(app, admission, settings, callers)
    _add_health_routes(app, admission)
    _add_description(app, settings, callers)
    for router in (
        admin_routes(operator, settings),
        event_routes(operator, settings),
        key_routes(keys, settings, clock),
        usage_routes(usage, budgets, settings),
        budget_routes(budgets, settings, admission),
        metrics_routes(metrics, settings),
    ):
        app.routes.extend(router.routes)  # `include_router` would make every route a second time
    if settings.cors_origins:
        app.add_middleware(ClientCors, origins=settings.cors_origins)
    app.add_middleware(Door)
    return app


def _add_openai_routes(app: FastAPI, admission: Admission, settings: Settings, callers: Callers) -> None:
    @app.get("/v1/models", response_model=ModelList)
    async def list_models(request: Request) -> dict[str, Any]:
        await callers.caller_of(request)
        live = admission.live()
        return {"object": "list", "data": [_model(name, live) for name in live.chains]}

    @app.get("/v1/models/{model}", response_model=Model)
    async def get_model(model: str, request: Request) -> dict[str, Any]:
        await callers.caller_of(request)
        live = admission.live()
        if model not in live.chains:
            message = f"the model {shown(model)!r} does not exist; there is: {', '.join(live.chains)}"
            raise UnknownModel(message, param="model", code="model_not_found")
        return _model(model, live)

    @app.post(
        "/v1/chat/completions",
        response_model=ChatCompletion,
        responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
        openapi_extra=takes(ChatBody, *_CHAT_HEADERS),
    )
    async def chat_completions(request: Request) -> Response:
        arrived = admission.arrival()
        try:
            caller, session = await callers.caller_of(request), session_of(request)
            raw = await read_body(request, settings.max_body_bytes)
        except InterlockError as error:
            admission.turned_away(error)
            raise
        request_id = request_id_of(request)
        span = admission.span(request_id, trace_context_of(request.headers), arrived)
        context = RequestContext(request_id, arrived, caller, session, span)
        return ChainResponse(admission, context, raw, read_chat_request)


def _add_health_routes(app: FastAPI, admission: Admission) -> None:
    @app.get("/healthz", response_model=Alive)
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", response_model=Ready)
    async def readyz() -> dict[str, Any]:
        live = admission.live()
        return {"status": "ready", "release": live.number, "model_set": live.model_set}


def _add_description(app: FastAPI, settings: Settings, callers: Callers) -> None:
    schema: dict[str, Any] = {}

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi(request: Request) -> JSONResponse:
        """Describe the routes that the caller may use: operators see all, clients their own."""
        try:
            actor_of(request, settings)
            operator = True
        except AccessDenied:
            await callers.caller_of(request)
            operator = False
        schema.update(schema or described(app))
        return JSONResponse(schema if operator else for_clients(schema))


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
    """Answer a bug of ours in OpenAI's shape; the server logs it, and clients do not learn what it was."""
    message = f"{request.method} {request.url.path} broke inside Interlock; the gateway's log says why"
    return JSONResponse({"error": error_object(message, "server_error")}, 500)


async def _on_wrong_parameter(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this class alone
    return await _on_error(_request, refusal_of(error.errors()[0]))


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class alone
    request_line = f"{request.method[:_SHOWN]} {request.url.path[:_SHOWN]}"
    message, code, headers = f"{request_line}: {error.detail}", None, dict(error.headers or {})
    match error.status_code:
        case 404:
            message, code = (
                f"there is no {request_line}; there is: {_CLIENT_ROUTES}; all: GET /openapi.json",
                "unknown_url",
            )
        case 405:
            headers = {"allow": ", ".join(_methods_at(request))}
            message = f"there is no {request_line}; the path has: {headers['allow']}"
    fields = error_object(message, "invalid_request_error") | {"code": code}
    return JSONResponse({"error": fields}, error.status_code, headers)


def _methods_at(request: Request) -> list[str]:
    """Return the methods of all routes that match a request's path."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    matching = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    methods = {method for route in matching for method in route.methods or ()}
    return sorted(methods | ({"HEAD"} if "GET" in methods else set()))
