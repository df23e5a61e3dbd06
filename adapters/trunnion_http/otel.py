"""Give a process of ours what exports its traces, where OpenTelemetry's own variables ask for it.

For `trunnion serve` and the replicas on Ray Serve. A tracer provider that is there already stays: that of
``opentelemetry-instrument``, of a program of one's own, of vLLM with ``otlp_traces_endpoint``.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final

from trunnion.errors import ConfigError

from .settings import HTTPSettings
from .tracing import INSTALL, has_provider

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_log: Final = logging.getLogger("trunnion.http")
_GROUP: Final = "opentelemetry_traces_exporter"
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_BY_PROTOCOL: Final = {
    "grpc": ("otlp_proto_grpc", "pip install opentelemetry-exporter-otlp-proto-grpc"),
    "http/protobuf": ("otlp_proto_http", INSTALL),
}


class TraceExport:
    """Hold a tracer provider that is not in force before :meth:`start`."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider

    def start(self) -> None:
        """Make it this process's, unless the process has one by now: an engine may bring its own."""
        from opentelemetry import trace

        if not has_provider():
            trace.set_tracer_provider(self._provider)


def flush_traces(limit: float = 3.0) -> None:
    """Send what this process's tracer provider still holds, ours or an engine's; do nothing where there is none.

    Blocks, at most ``limit`` seconds: a collector that is away must hold no stop up.
    """
    trace = sys.modules.get("opentelemetry.trace")
    flush = None if trace is None else getattr(trace.get_tracer_provider(), "force_flush", None)
    if flush is not None:
        thread = threading.Thread(target=flush, name="trunnion-traces", daemon=True)
        thread.start()
        thread.join(limit)


def trace_export(settings: HTTPSettings, environment: Mapping[str, str] | None = None) -> TraceExport | None:
    """Return what exports traces as the environment says; None where nothing asks for it.

    ``traces=True`` asks for it whatever the environment says. Without it, what is missing is a warning.

    Raises:
        ConfigError: ``traces=True``, and the SDK or the exporter is missing.
    """
    environment = os.environ if environment is None else environment
    names = _exporters(environment, wanted=settings.traces)
    if not names:
        return None
    try:
        return _build(names, environment)
    except ConfigError as error:
        if settings.traces:
            raise
        _log.warning("no traces: %s", error)
        return None


def _exporters(environment: Mapping[str, str], *, wanted: bool | None) -> list[str]:
    """Return the names of the exporters that are asked for."""
    if wanted is False or environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return []
    chosen = environment.get("OTEL_TRACES_EXPORTER", "").strip()
    if not chosen and not wanted and not any(environment.get(name) for name in _ENDPOINTS):
        return []
    names = [name.strip() for name in (chosen or "otlp").split(",")]
    return [name for name in names if name and name != "none"]


def _build(names: list[str], environment: Mapping[str, str]) -> TraceExport | None:
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigError(f"OpenTelemetry's SDK is not installed; {INSTALL}", param="traces") from error
    if has_provider():
        return None
    named = "OTEL_SERVICE_NAME" in environment or "service.name=" in environment.get("OTEL_RESOURCE_ATTRIBUTES", "")
    exporters = [_exporter(name, environment) for name in names]
    # Sampler, limits and the size of batches come from the environment, by the SDK's own reading.
    provider = TracerProvider(resource=Resource.create({} if named else {"service.name": "trunnion"}))
    for exporter in exporters:
        provider.add_span_processor(BatchSpanProcessor(exporter))
    return TraceExport(provider)


def _exporter(name: str, environment: Mapping[str, str]) -> Any:
    advice = "install the package that brings it"
    entry = name
    if name == "otlp":
        protocol = next((environment[key] for key in _PROTOCOLS if environment.get(key)), "http/protobuf")
        if protocol not in _BY_PROTOCOL:
            known = ", ".join(_BY_PROTOCOL)
            raise ConfigError(f"the OTLP protocol {protocol!r} is not known; one of: {known}", param="traces")
        entry, advice = _BY_PROTOCOL[protocol]
    found = next(iter(entry_points(group=_GROUP, name=entry)), None)
    if found is None:
        raise ConfigError(f"the trace exporter {entry!r} is not installed; {advice}", param="traces")
    try:
        return found.load()()
    except Exception as error:
        raise ConfigError(f"the trace exporter {entry!r} cannot be made: {error}", param="traces") from error
