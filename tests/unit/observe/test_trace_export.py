"""Where traces go, by OpenTelemetry's standard variables."""

import asyncio
import subprocess
import sys
import threading

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

from runtime.observe import otel
from runtime.observe.otel import OtelTracer
from runtime.observe.trace_export import open_tracer
from runtime.observe.tracing import NoTracer
from runtime.testing.virtual_time import LoopClock
from tests.collector import collector
from tests.unit.api.test_api import serving
from tests.unit.observe.test_tracing import TRACE, ask

OFF = [
    {},
    {"OTEL_SERVICE_NAME": "gateway"},
    {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
    {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "TRUE"},
    {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"},
    {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:1"},
]
ON = [
    {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
    {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1/v1/traces", "OTEL_SDK_DISABLED": "false"},
    {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
]


@pytest.fixture
def otel_variables(monkeypatch):
    """Sets OpenTelemetry's variables, and no others of them."""

    def variables(given):
        for name in ("ENDPOINT", "TRACES_ENDPOINT", "PROTOCOL", "TRACES_PROTOCOL"):
            monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{name}", raising=False)
        for name in ("SDK_DISABLED", "TRACES_EXPORTER", "TRACES_SAMPLER", "SERVICE_NAME"):
            monkeypatch.delenv(f"OTEL_{name}", raising=False)
        for name, value in given.items():
            monkeypatch.setenv(name, value)

    return variables


# Requests are traced if the standard's variables ask for it, and else are not.
@pytest.mark.parametrize(
    ("variables", "kind"), [*((each, NoTracer) for each in OFF), *((each, OtelTracer) for each in ON)]
)
def test_standard_variables(variables, kind, otel_variables):
    otel_variables(variables)
    tracer = open_tracer("gateway-1", LoopClock())
    assert type(tracer) is kind
    tracer.close()


# A protocol that is not spoken is said, and no reason not to serve.
def test_unknown_protocol(otel_variables, caplog):
    otel_variables({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"})
    assert type(open_tracer("gateway-1", LoopClock())) is NoTracer
    assert "http/json" in caplog.text


# Who does not trace does not import OpenTelemetry: neither its SDK nor its API.
def test_nothing_is_imported_while_it_is_off():
    script = (
        "import sys; from runtime.observe.trace_export import open_tracer; open_tracer('gateway-1', None);"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env={"PYTHONPATH": ":".join(sys.path)})


AGENTS = {"OTEL_SERVICE_NAME": "agents", "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test"}


# An endpoint in the standard's variable is all that is needed: a collector gets the spans by OTLP over HTTP.
# What else the standard has variables for, holds, too.
@pytest.mark.parametrize(
    ("more", "service"),
    [
        ({}, "interlock"),
        (AGENTS, "agents"),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, None),
    ],
)
async def test_export(more, service, otel_variables, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with collector() as collected:
        otel_variables({"OTEL_EXPORTER_OTLP_ENDPOINT": collected.address, **more})
        async with serving() as (world, client):
            tracer = world.gateways[0].admission._tracer = open_tracer("gateway-1", world.clock)
            await ask(client, stream=True)
            tracer.close()
    if service is None:
        assert collected.spans == []
        return
    (resource,) = collected.resources
    assert collected.paths == {"/v1/traces"}
    assert (resource["service.name"], resource["service.instance.id"]) == (service, "gateway-1")
    assert resource.get("deployment.environment") == ("test" if more else None)
    assert [span.name for span in collected.spans] == [
        "classify router",
        "chat writer",
        "invoke_workflow agent",
    ]
    assert {span.trace_id.hex() for span in collected.spans} == {TRACE}


# A gateway that ends waits for its collector, but not for ever.
def test_close_has_a_limit(monkeypatch, caplog):
    answering = threading.Event()

    class Stuck(SpanExporter):
        def export(self, spans):
            answering.wait(5.0)

    monkeypatch.setattr(otel, "CLOSE_SECONDS", 0.02)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(Stuck()))
    asyncio.run(_end_one(OtelTracer(provider, LoopClock())))
    answering.set()
    assert "the last spans are lost" in caplog.text


async def _end_one(tracer):
    tracer.request("r", {}, 0.0).end()
    tracer.close()
