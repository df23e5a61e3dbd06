"""Describe an endpoint by its list of models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from trunnion.engine import EngineInfo, TokenizerRef
from trunnion.errors import ConfigError, ModelNotFound

from ._openai import VERSION
from .capabilities import Dialect, capabilities
from .config import OpenAIConfig
from .wire import ModelCard, ModelList

_SHOWN: Final = 8
_OWNERS: Final[dict[str, Dialect]] = {
    "vllm": "vllm",
    "openai": "openai",
    "openai-internal": "openai",
    "system": "openai",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Hold what is known of the endpoint: the model's name there, the dialect, and what the list says of both."""

    model: str
    dialect: Dialect
    owner: str = ""
    context_length: int | None = None
    adapters: tuple[str, ...] = ()


def find(model: str, listed: ModelList | None, config: OpenAIConfig) -> Found:
    """Find the model in the list; None for an endpoint that has no list.

    Raises:
        ConfigError: No model was named, and the list does not hold exactly one.
        ModelNotFound: The model is not in the list.
    """
    cards = [] if listed is None else listed.data or []
    bases = [card for card in cards if card.parent is None or card.parent == card.id]
    names = ", ".join(card.id for card in cards[:_SHOWN]) or "none"
    card = next((one for one in cards if one.id == model), None)
    if not model:
        if len(bases) != 1:
            raise ConfigError(f"name the model; {config.base_urls[0]} serves {names}", param="model")
        card = bases[0]
    if card is None and cards:
        raise ModelNotFound(
            f"{config.base_urls[0]} serves no model {model!r}; it has {names}; "
            "check_endpoint=false skips this look at its list",
            param="model",
        )
    if card is None:
        return Found(model=model, dialect=_dialect(config, ""))
    owner = card.owned_by or ""
    return Found(
        model=card.id,
        dialect=_dialect(config, owner),
        owner=owner,
        context_length=card.max_model_len,
        adapters=tuple(one.id for one in cards if _is_adapter(one, card)),
    )


def _is_adapter(one: ModelCard, base: ModelCard) -> bool:
    return one.parent == base.id and one.id != base.id


def _dialect(config: OpenAIConfig, owner: str) -> Dialect:
    if config.dialect != "auto":
        return config.dialect
    if all(urlsplit(url).hostname == "api.openai.com" for url in config.base_urls):
        return "openai"
    return _OWNERS.get(owner, "other")


def describe(found: Found, config: OpenAIConfig) -> EngineInfo:
    """Return the description of the started engine."""
    return EngineInfo(
        engine="openai",
        model=found.model,
        context_length=config.context_length or found.context_length,
        tokenizer=None if config.tokenizer is None else TokenizerRef(path=config.tokenizer),
        concurrency=config.max_concurrency,
        capabilities=capabilities(found.dialect, config.api),
        adapters=found.adapters,
        library=f"openai {VERSION}",
        details={
            "dialect": found.dialect,
            "base_urls": list(config.base_urls),
            "owned_by": found.owner,
            **({} if config.prices is None else {"prices": config.prices.told()}),
        },
    )
