"""Define what is masked."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from trunnion import PluginConfig

Kind = Literal["email", "phone"]


class RedactConfig(PluginConfig):
    """Say what is masked and what passes."""

    kinds: tuple[Kind, ...] = Field(("email", "phone"), description="What is masked: email, phone.")
    default_region: str | None = Field(
        None,
        pattern="^[A-Z]{2}$",
        description='Region whose national phone numbers are recognised, such as "US" or "DE". None: only numbers '
        "written with + and their country code.",
    )
    allow: tuple[str, ...] = Field(
        (),
        description='What passes unmasked: an address, "@example.com" for every address of a domain, or a phone number '
        "written with + and its country code, however the text writes it.",
    )
    token_ids: Literal["refuse", "pass"] = Field(
        "refuse",
        description="What becomes of prompts given as token ids, which nobody can look into: refuse, or pass unmasked.",
    )
