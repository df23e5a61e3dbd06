"""Define the settings of the simulated engine."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trunnion import PluginConfig

Fault = Literal["refuse", "hang", "die", "crash", "slow"]


class SimConfig(PluginConfig):
    """Set times, slots and faults. A fault strikes the requests whose prompt contains ``fault_marker``."""

    seed: int = Field(0, description="Seed of every token; the same seed and prompt give the same text.")
    ttft: float = Field(0.0, ge=0, description="Seconds from admission to the first token.")
    tpot: float = Field(0.0, ge=0, description="Seconds per further token.")
    tokens_per_event: int = Field(1, ge=1, description="Tokens that ride on one event.")
    slots: int = Field(256, ge=1, description="Requests that run side by side; others wait in order.")
    max_waiting: int | None = Field(None, ge=0, description="Waiting requests beyond which new ones are refused.")
    context_length: int = Field(32768, ge=2, description="Prompt plus completion tokens that fit.")
    default_max_tokens: int = Field(64, ge=1, description="Completion length where the request sets none.")
    eos_after: int | None = Field(
        None, ge=1, description="Tokens after which a completion ends by itself; None lets it run to max_tokens."
    )
    startup_seconds: float = Field(0.0, ge=0, description="Seconds that start() takes.")
    output: Literal["words", "echo"] = Field(
        "words", description="What is generated: words drawn by seed, or the prompt."
    )
    adapters: tuple[str, ...] = Field((), description="LoRA adapter names it pretends to hold; they shift the seed.")
    tokenizer: str | None = Field(
        None,
        description="Path of a tokenizer: the engine then takes token ids alone and returns ids the stages decode.",
    )
    fault: Fault | None = Field(
        None,
        description="Fault on demand: refuse (429), hang, die in mid-stream, crash the engine, slow (ten times).",
    )
    fault_marker: str = Field("", description="Only prompts that contain this text meet the fault; empty: all.")
    fault_after: int = Field(
        1, ge=0, description="Tokens after which die, hang or crash strikes; at the latest before the last event."
    )
