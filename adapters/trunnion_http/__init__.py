"""Serve OpenAI's and Anthropic's HTTP APIs over core types, as one ASGI app that knows nothing of Ray."""

from .app import App, create_app
from .models import ModelDirectory, ModelHandle
from .pipeline_model import PipelineModel
from .server import HTTPServer, make_server, serve
from .settings import BatchSettings, HTTPSettings

__all__ = [
    "App",
    "BatchSettings",
    "HTTPServer",
    "HTTPSettings",
    "ModelDirectory",
    "ModelHandle",
    "PipelineModel",
    "create_app",
    "make_server",
    "serve",
]
