"""Answer for ``engine="auto"`` whether transformers suits, without importing it."""

from __future__ import annotations

from trunnion.suitability import EngineQuestion, Suitability


def suits(question: EngineQuestion) -> Suitability:
    """Be the default where there is no GPU: it starts in seconds and loads every model of the library."""
    model = question.model
    if model is not None and model.weights == {".gguf"}:
        return Suitability(score=0, reason="the model is a GGUF file")
    if question.machine.gpus:
        return Suitability(score=50, reason="it runs on the GPU, if not as fast as an engine made for it")
    if model is not None and model.quantization:
        return Suitability(score=20, reason=f"{model.quantization} weights are made for GPUs")
    return Suitability(score=50, reason="there is no GPU, and it starts quickly on CPUs")
