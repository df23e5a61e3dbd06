"""Answer for ``engine="auto"`` whether vLLM suits, without importing it."""

from __future__ import annotations

from trunnion.suitability import EngineQuestion, Suitability

from .config import VLLMConfig
from .placement import device_of


def suits(question: EngineQuestion) -> Suitability:
    """Prefer a GPU build on a GPU; a CPU build works, and starts slowly."""
    model = question.model
    if model is not None and model.weights == {".gguf"}:
        return Suitability(score=0, reason="the model is a GGUF file")
    gpus = question.machine.gpus
    if device_of(VLLMConfig.model_validate(dict(question.config))) == "cpu":
        if gpus:
            return Suitability(score=20, reason="its CPU build is installed, which leaves the GPU idle")
        return Suitability(score=40, reason="its CPU build works here, and takes long to start")
    if not gpus:
        return Suitability(score=0, reason="its GPU build is installed, and there is no GPU")
    return Suitability(score=100, reason="its GPU build is installed, and a GPU is there")
