"""Requests that nobody would write, made from the API's own description, and headers that nobody would send.

Whatever comes, the answer is one that the description names, and none is a mistake of ours. What cannot be
had is a 503 or a 504 only while it cannot.
"""

import asyncio
import contextlib
import json

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from runtime.errors import EngineUnavailable, StoreUnavailable
from runtime.testing.virtual_time import VirtualTimeLoop
from tests.unit.api.test_api import ASK, app_of
from tests.unit.direct_keys import memory_keys
from tests.unit.world import World, content

ADMIN = "admin"
ASKED_OF_THE_MANAGER = ("status", "health", "command", "plan", "audit", "metrics")


class Gateway:
    """A gateway with a live release, a tenant's key and an operator's, called from outside its loop."""

    def __init__(self):
        self._runner = asyncio.Runner(loop_factory=VirtualTimeLoop)
        self._stack = contextlib.AsyncExitStack()
        self._runner.run(self._start())

    async def _start(self):
        self._keys = memory_keys()
        self.world = await self._stack.enter_async_context(World(gateways=1))
        wanted = content(1, writer={"load": "10ms", "tokens": 3})
        self.world.want(wanted)
        await self.world.until_live(wanted)
        self.app = app_of(self.world, keys=self._keys, admin_key=ADMIN)
        transport = httpx.ASGITransport(app=self.app, client=("10.1.2.3", 4000), raise_app_exceptions=False)
        client = httpx.AsyncClient(transport=transport, base_url="http://gateway", timeout=None)
        self._client = await self._stack.enter_async_context(client)
        made = await self._client.post("/admin/v1/keys", json={"tenant": "acme"}, headers=bearer(ADMIN))
        self.secret = made.json()["key"]
        await asyncio.sleep(3.0)

    def ask(self, method, url, headers, body=None):
        """Return the answer, which is there within the chain's deadline."""
        return self._runner.run(self._ask(method, url, headers, body))

    async def _ask(self, method, url, headers, body):
        request = self._client.build_request(method, url, headers=headers, content=body)
        async with asyncio.timeout(40):
            return await self._client.send(request)

    def description(self):
        return self.ask("GET", "/openapi.json", bearer(ADMIN)).json()

    @contextlib.contextmanager
    def without(self, missing):
        """Let the keys' store, or the manager, be away."""
        manager = self.world.manager
        if missing == "store":
            self._keys.error = StoreUnavailable(
                "the store does not answer", detail="db.internal:5432 refused"
            )
            self._runner.run(asyncio.sleep(3.0))  # what was told by it before is forgotten
        if missing == "manager":
            vars(manager).update(dict.fromkeys(ASKED_OF_THE_MANAGER, away))
        try:
            yield
        finally:
            self._keys.error = None
            for name in ASKED_OF_THE_MANAGER:
                vars(manager).pop(name, None)

    def close(self):
        self._runner.run(self._stack.aclose())
        self._runner.close()
        self._keys.engine.dispose()


async def away(*_):
    raise EngineUnavailable("the manager does not answer")


def bearer(secret):
    return {"authorization": f"Bearer {secret}"}


@pytest.fixture
def gateway():
    gateway = Gateway()
    yield gateway
    gateway.close()


def requests_of(description):
    """Cases of every operation, half of them as the description says and half as it does not."""
    schema = schemathesis.openapi.from_dict(description)
    operations = [found.ok() for found in schema.get_all_operations()]
    return st.one_of(
        [operation.as_strategy(generation_mode=mode) for operation in operations for mode in GenerationMode]
    )


missing = st.sampled_from([None] * 6 + ["store", "manager"])
whose = st.sampled_from(["right"] * 6 + ["other", "none"])


def check(gateway, case, gone, credentials):
    """Send a case and hold its answer against the description."""
    sent = {
        name: value
        for name, value in case.as_transport_kwargs(base_url="http://gateway").items()
        if name in {"method", "url", "headers", "params", "cookies", "json", "data"}
    }
    prepared = requests.Request(**sent).prepare()
    operator = case.path.startswith("/admin") or case.path == "/metrics"
    secrets = {"right": ADMIN if operator else gateway.secret, "other": gateway.secret if operator else ADMIN}
    headers = dict(prepared.headers) | (bearer(secrets[credentials]) if credentials in secrets else {})
    with gateway.without(gone):
        answer = gateway.ask(case.method, prepared.url, headers, prepared.body)
    assert answer.status_code != 500, answer.text
    assert gone is not None or answer.status_code < 500, answer.text
    assert "db.internal" not in answer.text
    if answer.status_code >= 400:
        # Of a model set all that is wrong is told together.
        assert len(answer.content) < (16_000 if case.path.endswith("/plans") else 1500)
        assert set(answer.json()["error"]) >= {"message", "type", "param", "code"}
    case.validate_response(
        answer, checks=[status_code_conformance, content_type_conformance, response_schema_conformance]
    )


def ask_of(gateway, examples, part=0):
    @seed(part)
    @settings(
        derandomize=False,
        max_examples=examples,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(requests_of(gateway.description()), missing, whose)
    def play(case, gone, credentials):
        check(gateway, case, gone, credentials)

    play()
    assert not gateway.world.manager_ended
    assert gateway.world.leases() == 0


# Whatever is asked, the answer is one that the description names; nothing of it is a mistake of ours.
@pytest.mark.simulation
@pytest.mark.timeout(300)
def test_any_request(gateway):
    ask_of(gateway, 600)


HEADERS = [
    *("x-request-id", "x-interlock-session", "traceparent", "tracestate", "authorization", "content-type"),
    *(
        "content-length",
        "transfer-encoding",
        "host",
        "origin",
        "sec-fetch-site",
        "x-forwarded-for",
        "forwarded",
    ),
    *("if-match", "if-none-match", "x-interlock-actor", "accept", "content-encoding", "expect", "cookie"),
]
LIKELY = [
    *(
        b"",
        b"0",
        b"-1",
        b"9" * 40,
        b"1e3",
        b"\xb2",
        b"\x00",
        b"\xff" * 9,
        b"x" * 20_000,
        b" ",
        b"*",
        b'"1"',
        b"W/",
    ),
    *(
        b"chunked",
        b"gzip",
        b"application/json",
        b"text/plain",
        b"localhost",
        b"[::1",
        b"null",
        b"http://[",
        b",",
    ),
    *(
        b"Bearer",
        b"bearer  nobody",
        b"Bearer admin nobody",
        b"Basic YQ==",
        b"00-" + b"0" * 32 + b"-" + b"0" * 16,
    ),
    b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
]
values = st.one_of(st.sampled_from(LIKELY), st.binary(max_size=60))
several = st.lists(st.tuples(st.sampled_from(HEADERS), values), max_size=6)
ASKS = [
    ("GET", "/v1/models", b""),
    ("POST", "/v1/chat/completions", json.dumps(ASK).encode()),
    ("GET", "/admin/v1/releases", b""),
    ("POST", "/admin/v1/releases/abort", b""),
    ("PUT", "/admin/v1/budgets", b'{"tenant": "other", "limit": 1}'),
    ("POST", "/admin/v1/keys", b'{"tenant": "acme"}'),
    ("HEAD", "/readyz/", b""),
    ("OPTIONS", "/v1/models", b""),
]


def ask_with_headers(gateway, examples, part=0):
    @seed(part)
    @settings(
        derandomize=False,
        max_examples=examples,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(ASKS), several, st.booleans())
    def play(asked, headers, known):
        method, path, body = asked
        secret = ADMIN if path.startswith("/admin") else gateway.secret
        given = [("authorization", f"Bearer {secret}")] if known else []
        answer = gateway.ask(method, path, [*given, *headers], body)
        assert answer.status_code < 500, (headers, answer.text)
        assert len(answer.content) < 1500 or answer.status_code < 300
        assert known or answer.status_code >= 400 or path.startswith("/readyz"), (method, path, headers)

    play()
    assert gateway.world.leases() == 0


# Whatever headers come, with a key or without, nothing breaks, and nobody gets in by them.
@pytest.mark.simulation
def test_any_headers(gateway):
    ask_with_headers(gateway, 500)


# The same for long: five thousand requests, and as many sets of headers.
@pytest.mark.simulation
@pytest.mark.faults
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", range(10))
def test_any_request_for_long(gateway, part):
    ask_of(gateway, 500, 1 + part)
    ask_with_headers(gateway, 500, 1 + part)
