"""Mirror Ray's own LLM serving modules by name, of both generations, over the engine-neutral API."""

from .builders import build_dp_deployment, build_dp_openai_app, build_llm_deployment, build_pd_openai_app
from .configs import CloudMirrorConfig, LLMConfig, LLMServingArgs, LoraConfig, ModelLoadingConfig
from .deployments import LLMRouter, LLMServer

__all__ = [
    "CloudMirrorConfig",
    "LLMConfig",
    "LLMRouter",
    "LLMServer",
    "LLMServingArgs",
    "LoraConfig",
    "ModelLoadingConfig",
    "build_dp_deployment",
    "build_dp_openai_app",
    "build_llm_deployment",
    "build_pd_openai_app",
]
