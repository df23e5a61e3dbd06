"""Define the settings of the simulated engine. What vLLM has too is called as it is there."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Final, Literal, Self

from pydantic import Field, model_validator

from trunnion import FEATURES, PluginConfig
from trunnion.capabilities import PROTOCOLS

from .faults import Fault, FaultRule
from .presets import PRESETS
from .scripts import Script
from .step_time import StepTime

_OLD_NAMES: Final = {"slots": "max_num_seqs", "context_length": "max_model_len"}


class SimConfig(PluginConfig):
    """Set times, capacity, output and faults.

    Time is told in one of two ways. ``ttft`` and ``tpot`` give each request a timetable of its own; zero, the default,
    makes everything instant. ``step`` runs all requests in common steps, as continuous batching does.
    """

    seed: int = Field(0, description="Seed of every token and fault; the same seed and prompt give the same text.")
    preset: str | None = Field(
        None, description=f"Settings to start from, each of which may be set anew: {', '.join(sorted(PRESETS))}."
    )
    # time
    ttft: float = Field(0.0, ge=0, description="Seconds from admission to the first token.")
    tpot: float = Field(0.0, ge=0, description="Seconds per further token.")
    step: StepTime = Field(StepTime.model_validate({}), description="Time of one step; not with ttft and tpot.")
    startup_seconds: float = Field(0.0, ge=0, description="Seconds that start() takes.")
    # capacity
    max_num_seqs: int = Field(
        256, ge=1, description="Requests that run side by side on a rank; others wait in order. Also: slots."
    )
    max_waiting: int | None = Field(None, ge=0, description="Waiting requests beyond which new ones are refused.")
    scheduling_policy: Literal["priority", "fcfs"] = Field(
        "priority", description="Who is admitted first: by priority, then arrival; or by arrival alone."
    )
    max_model_len: int = Field(32768, ge=2, description="Prompt plus completion tokens that fit. Also: context_length.")
    max_num_batched_tokens: int = Field(
        2048, ge=1, description="Tokens computed in one step: those that decode, then chunks of prompts."
    )
    enable_chunked_prefill: bool = Field(
        default=True, description="Compute prompts in chunks, as the step has room; off: each prompt in one step."
    )
    block_size: int = Field(16, ge=1, description="Tokens per KV cache block.")
    num_gpu_blocks_override: int | None = Field(
        None, ge=1, description="KV cache blocks of a rank; None for as many as can be needed."
    )
    enable_prefix_caching: bool = Field(default=True, description="Share the blocks of equal prompt beginnings.")
    kv_events: bool = Field(default=False, description="Publish which blocks are stored and removed.")
    tensor_parallel_size: int = Field(1, ge=1, description="Workers that share each step.")
    tensor_parallel_efficiency: float = Field(
        0.85,
        gt=0,
        le=1,
        description="What a worker beyond the first adds: n make steps 1 + (n - 1) times it faster.",
    )
    data_parallel_size: int = Field(1, ge=1, description="Independent schedulers behind the one engine.")
    worker_cpus: float = Field(1.0, ge=0, description="Logical CPUs that Ray reserves for each worker of each rank.")
    # adapters
    adapters: tuple[str, ...] = Field((), description="LoRA adapter names it pretends to hold; they shift the seed.")
    max_loras: int | None = Field(
        None, ge=1, description="Adapters in memory at once, the least recently used leaves; None for all."
    )
    lora_load_seconds: float = Field(0.0, ge=0, description="Seconds to bring an adapter into memory.")
    # output
    output: Literal["words", "echo", "script"] = Field(
        "words", description="What is generated: words drawn by seed, the prompt, or the answers of script."
    )
    script: Script = Field((), description="Answers in turn; or answers by a text that the prompt contains.")
    tokens_per_event: int = Field(1, ge=1, description="Tokens that ride on one event.")
    default_max_tokens: int = Field(64, ge=1, description="Completion length where the request sets none.")
    eos_after: int | None = Field(
        None, ge=1, description="Tokens after which a completion ends by itself; None lets it run to max_tokens."
    )
    tool_calls: int = Field(1, ge=1, description="Calls made where tools are given; one if no parallel ones may be.")
    embedding_size: int = Field(64, ge=1, le=8192, description="Dimensions of an embedding.")
    labels: tuple[str, ...] = Field(
        ("negative", "neutral", "positive"),
        min_length=1,
        description="Labels of a classification; a prompt leans towards those whose words it has.",
    )
    tokenizer: str | None = Field(
        None,
        description="Path of a tokenizer: the engine then takes token ids alone and returns ids the stages decode.",
    )
    # what it shows of itself
    unsupported: tuple[str, ...] = Field(
        (), description="Features and protocols it is to do without, such as tools, output_format.* or embeds/1."
    )
    load_report_interval: float = Field(0.0, ge=0, description="Seconds for which a load report stays as it is.")
    # faults
    fault: Fault | None = Field(
        None,
        description="Fault on demand: refuse (429), hang, die in mid-stream, crash the engine, exit with the process, "
        "slow (ten times), malformed, no_usage.",
    )
    fault_marker: str = Field("", description="Only prompts that contain this text meet the fault; empty: all.")
    fault_after: int = Field(
        1, ge=0, description="Tokens after which die, hang, crash or exit strikes; at the latest before the last event."
    )
    fault_rate: float = Field(1.0, ge=0, le=1, description="Share of those requests that the fault strikes.")
    faults: tuple[FaultRule, ...] = Field((), description="Further faults, by rate, number or time.")

    @model_validator(mode="before")
    @classmethod
    def _old_names_and_preset(cls, data: Any) -> Any:
        """Take the old names of settings, and what a preset sets where the user sets nothing."""
        if not isinstance(data, Mapping):
            return data
        given = dict(data)
        for old, new in _OLD_NAMES.items():
            if old in given:
                if new in given:
                    raise ValueError(f"{old} is another name of {new}; set one of them")
                given[new] = given.pop(old)
        name = given.get("preset")
        if name is None:
            return given
        if name not in PRESETS:
            near = get_close_matches(str(name), PRESETS, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"no preset is called {name!r}; {hint}there are: {', '.join(sorted(PRESETS))}")
        merged = {**PRESETS[name], **given}
        if isinstance(given.get("step"), Mapping):
            merged["step"] = {**PRESETS[name]["step"], **given["step"]}
        return merged

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.step.free and (self.ttft or self.tpot):
            raise ValueError("step and ttft/tpot are two ways to tell time; set one of them")
        if (self.output == "script") != bool(self.script):
            raise ValueError("output='script' and script go together; set both or neither")
        if self.kv_events and not self.enable_prefix_caching:
            raise ValueError("kv_events tell of the prefix cache; leave enable_prefix_caching on")
        for name in self.unsupported:
            known = name in FEATURES or name in PROTOCOLS
            if not known and not (name.endswith(".*") and any(f.startswith(name[:-1]) for f in FEATURES)):
                raise ValueError(f"unsupported: no feature or protocol is called {name!r}; see trunnion.FEATURES")
        return self

    @property
    def kv_blocks(self) -> int:
        """Return the KV blocks of a rank."""
        return self.num_gpu_blocks_override or self.max_num_seqs * -(-self.max_model_len // self.block_size)

    @property
    def instant(self) -> bool:
        """Tell whether requests take no time at all."""
        return self.step.free and not (self.ttft or self.tpot)

    @property
    def speed(self) -> float:
        """Return how many times as fast as one worker the workers of a rank are."""
        return 1 + (self.tensor_parallel_size - 1) * self.tensor_parallel_efficiency

    @property
    def fault_rules(self) -> tuple[FaultRule, ...]:
        """Return all faults, the one of the ``fault`` settings first."""
        if self.fault is None:
            return self.faults
        first = FaultRule.model_validate(
            {"kind": self.fault, "marker": self.fault_marker, "rate": self.fault_rate, "after": self.fault_after}
        )
        return (first, *self.faults)
