"""Convert models and LoRA adapters of Hugging Face's formats to GGUF. ``python -m trunnion_llamacpp.convert``."""

from .adapter import convert_adapter
from .model import convert_model
from .problem import ConversionError

__all__ = ["ConversionError", "convert_adapter", "convert_model"]
