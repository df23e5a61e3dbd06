"""Run batches on Ray Data: a processor turns a dataset of prompts into a dataset of answers.

:class:`ProcessorConfig` is the engine-neutral configuration. The other names mirror ``ray.data.llm`` of Ray 2.44 and
of today, so that a program written for it runs with its import line changed.
"""

from .build import build_llm_processor, build_processor
from .call_processor import CallProcessor
from .config import ModelConfig, ProcessorConfig
from .failures import find_error
from .processor import Processor
from .ray_calls import HttpRequestProcessorConfig, HttpRequestStageConfig, ServeDeploymentProcessorConfig
from .ray_llm import (
    ChatTemplateStageConfig,
    DetokenizeStageConfig,
    PrepareMultimodalStageConfig,
    SGLangEngineProcessorConfig,
    TokenizerStageConfig,
    vLLMEngineProcessorConfig,
)

__all__ = [
    "CallProcessor",
    "ChatTemplateStageConfig",
    "DetokenizeStageConfig",
    "HttpRequestProcessorConfig",
    "HttpRequestStageConfig",
    "ModelConfig",
    "PrepareMultimodalStageConfig",
    "Processor",
    "ProcessorConfig",
    "SGLangEngineProcessorConfig",
    "ServeDeploymentProcessorConfig",
    "TokenizerStageConfig",
    "build_llm_processor",
    "build_processor",
    "find_error",
    "vLLMEngineProcessorConfig",
]
