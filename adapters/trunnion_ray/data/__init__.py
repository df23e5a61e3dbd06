"""Run batches on Ray Data: a processor turns a dataset of prompts into a dataset of answers."""

from .config import ProcessorConfig
from .failures import find_error
from .processor import Processor, make_processor as build_processor

__all__ = ["Processor", "ProcessorConfig", "build_processor", "find_error"]
