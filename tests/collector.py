"""A collector of OpenTelemetry's on this host, for tests of what is exported."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Collector:
    """What has been posted so far: by which paths, of which resources, and the spans."""

    def __init__(self, address):
        self.address = address
        self.paths = set()
        self.resources = []
        self.spans = []

    def take(self, path, body):
        self.paths.add(path)
        for told in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resources.append({each.key: each.value.string_value for each in told.resource.attributes})
            self.spans += [span for scope in told.scope_spans for span in scope.spans]


@contextmanager
def collector():
    """Serve OTLP over HTTP."""

    class Take(BaseHTTPRequestHandler):
        def do_POST(self):
            taking.take(self.path, self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Take) as server:
        taking = Collector(f"http://127.0.0.1:{server.server_port}")
        serving = threading.Thread(target=server.serve_forever, args=[0.01])
        serving.start()
        try:
            yield taking
        finally:
            server.shutdown()
            serving.join()
