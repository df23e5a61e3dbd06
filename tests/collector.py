"""Listen as an OpenTelemetry collector does, over HTTP."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Collector:
    """Hold what was sent: ``bodies`` of requests to ``url``, as (path, bytes)."""

    def __init__(self, url):
        self.url = url
        self.bodies = []

    @property
    def spans(self):
        """Return the spans, each with the attributes of what sent it: (span, {name: value})."""
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        found = []
        for path, body in list(self.bodies):
            assert path == "/v1/traces"
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                told = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
                found += [(span, told) for scope in resource.scope_spans for span in scope.spans]
        return found


@contextmanager
def collecting():
    """Run a collector."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            collector.bodies.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector = Collector(f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield collector
        server.shutdown()
