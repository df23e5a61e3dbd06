"""Classify prompts with a sequence classification model; one with a single label is a cross-encoder, and scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from trunnion.engine import Classification, Score
from trunnion.events import Usage

from .config import TransformersConfig
from .encoder import Encoder, Tokens
from .loading import Loaded


class Classifier(Encoder):
    """Hold a model that classifies.

    Attributes:
        labels: The model's, in its order.
        raw: Whether a cross-encoder's scores are its logits, as its sentence-transformers settings may say; else they
            are between 0 and 1.
    """

    kind: Literal["classify"] = "classify"
    does = "classifies"

    def __init__(self, loaded: Loaded, config: TransformersConfig) -> None:
        """Take the model. Raises :class:`ConfigError` for adapters."""
        super().__init__(loaded, config)
        described = self._model.config
        self.labels = tuple(str(described.id2label[place]) for place in range(described.num_labels))
        self._each = described.problem_type == "multi_label_classification"
        held = getattr(described, "sentence_transformers", None) or {}
        activation = held.get("activation_fn") or getattr(described, "sbert_ce_default_activation_function", None) or ""
        self.raw = str(activation).endswith("Identity")
        if described.get_text_config().pad_token_id is None:
            self.max_requests = 1  # the model finds the end of a text by its padding

    @property
    def scores(self) -> bool:
        """Tell whether the model is a cross-encoder."""
        return len(self.labels) == 1

    async def classify(self, inputs: Sequence[Tokens]) -> list[Classification]:
        """Return the probabilities per prompt, in order; each label's own where several may hold."""

        def finish(output: Any, _mask: Any) -> Any:
            logits = output.logits.float()
            return logits.sigmoid() if self._each else logits.softmax(-1)

        return [
            Classification(
                probabilities=dict(zip(self.labels, row, strict=True)),
                usage=Usage(prompt_tokens=len(one.ids), completion_tokens=0),
            )
            for one, row in zip(inputs, await self.encode(inputs, finish), strict=True)
        ]

    async def score(self, pairs: Sequence[Tokens]) -> list[Score]:
        """Return one score per pair of query and text, in order."""

        def finish(output: Any, _mask: Any) -> Any:
            logits = output.logits.float()
            return logits if self.raw else logits.sigmoid()

        return [
            Score(value=row[0], usage=Usage(prompt_tokens=len(one.ids), completion_tokens=0))
            for one, row in zip(pairs, await self.encode(pairs, finish), strict=True)
        ]
