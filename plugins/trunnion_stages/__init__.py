"""Stages around any engine: chat template and tokenizer before it; text, stop strings and tool calls after it.

Importing this registers them and loads nothing heavy.
"""

from .plugin import trunnion_stages

__all__ = ["trunnion_stages"]
