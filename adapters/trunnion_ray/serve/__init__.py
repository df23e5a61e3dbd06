"""Serve models on Ray Serve, with OpenAI's API and for Python callers."""

from .application import AppConfig
from .build import build_openai_app
from .config import Autoscaling, GatewayConfig, ModelConfig, RouterConfig, StageConfig, Topology
from .replica import ModelReplica
from .run import ensure_serve, run
from .topology import direct_env_vars, serve_options

__all__ = [
    "AppConfig",
    "Autoscaling",
    "GatewayConfig",
    "ModelConfig",
    "ModelReplica",
    "RouterConfig",
    "StageConfig",
    "Topology",
    "build_openai_app",
    "direct_env_vars",
    "ensure_serve",
    "run",
    "serve_options",
]
