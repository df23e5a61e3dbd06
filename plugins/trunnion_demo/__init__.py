"""Carry a small chat model in the package, for tests, benches and first steps without a network.

A Llama of 3 million weights with tokenizer, chat template and two LoRA adapters. It answers
simple questions, writes haikus and JSON, and calls tools; `trunnion_demo.train` made it.
"""

from trunnion_demo.files import adapter_paths, model_path, write_demo_model
from trunnion_demo.prompts import PROMPTS, DemoPrompt

__all__ = ["PROMPTS", "DemoPrompt", "adapter_paths", "model_path", "write_demo_model"]
