"""Serve models on Ray Serve, with OpenAI's API and for Python callers."""

from trunnion import MediaPolicy as MediaPolicy
from trunnion.adapter_setting import LoraSettings as LoraSettings
from trunnion_http import HTTPSettings as HTTPSettings

from .application import AppConfig
from .build import build_openai_app
from .composition import Program, Voice, compose
from .config import Autoscaling, GatewayConfig, ModelConfig, RouterConfig, StageConfig, Topology
from .mirror import (
    CloudMirrorConfig,
    LLMConfig,
    LLMRouter,
    LLMServer,
    LLMServingArgs,
    LoraConfig,
    ModelLoadingConfig,
    build_dp_deployment,
    build_dp_openai_app,
    build_llm_deployment,
    build_pd_openai_app,
)
from .replica import ModelReplica
from .run import ensure_serve, run
from .topology import direct_env_vars, serve_options

__all__ = [
    "AppConfig",
    "Autoscaling",
    "CloudMirrorConfig",
    "GatewayConfig",
    "LLMConfig",
    "LLMRouter",
    "LLMServer",
    "LLMServingArgs",
    "LoraConfig",
    "ModelConfig",
    "ModelLoadingConfig",
    "ModelReplica",
    "Program",
    "RouterConfig",
    "StageConfig",
    "Topology",
    "Voice",
    "build_dp_deployment",
    "build_dp_openai_app",
    "build_llm_deployment",
    "build_openai_app",
    "build_pd_openai_app",
    "compose",
    "direct_env_vars",
    "ensure_serve",
    "run",
    "serve_options",
]
