"""Train the demo model and its adapters on a CPU. Imports torch, transformers and peft.

Nothing here is imported at run time: the package's public API is standard library only.
"""
