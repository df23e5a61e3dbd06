"""Offer the command line: ``trunnion plugins | engines | demo-model | run | serve | chat``."""

__all__: list[str] = []
