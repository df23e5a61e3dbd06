"""Define the settings of the routers."""

from __future__ import annotations

from pydantic import Field

from trunnion import PluginConfig


class LeastLoadedConfig(PluginConfig):
    """Set how load is read."""

    max_report_age: float = Field(5.0, gt=0, description="Seconds after which a replica's own report is ignored.")


class PowerOfTwoConfig(LeastLoadedConfig):
    """Set the draw."""

    seed: int | None = Field(None, description="Seed of the draw, for tests; None draws differently each time.")


class AffinityConfig(LeastLoadedConfig):
    """Set what attracts a request, and how much load it may cost. Load always counts: there is no profile without."""

    session: float = Field(4.0, ge=0, description="Requests' worth of load a replica may be behind to keep a session.")
    adapter: float = Field(8.0, ge=0, description="The same to reuse a loaded LoRA adapter.")
    prefix: float = Field(4.0, ge=0, description="The same for a prompt whose whole indexed prefix was seen there.")
    prefix_block: int = Field(256, ge=16, description="Characters (or tokens, for token ids) per block of the index.")
    max_entries: int = Field(50_000, ge=1, description="Bound of the session index and of the prefix index, each.")
