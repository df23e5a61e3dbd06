"""Share the loaded demo model between the tests of this folder."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from transformers import AutoTokenizer

from trunnion_demo import DemoPrompt, model_path
from trunnion_demo.training.probe import Answer, answer, load

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedTokenizerBase


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerBase:
    """Return the tokenizer as a user loads it."""
    return AutoTokenizer.from_pretrained(model_path())


@pytest.fixture(scope="session")
def ask() -> Callable[[DemoPrompt, str, str | None], Answer]:
    """Return a function that answers (prompt, dtype, adapter) greedily; models load once."""
    loaded = cache(lambda dtype, adapter: load(model_path(), getattr(torch, dtype), adapter))

    def ask_once(prompt: DemoPrompt, dtype: str, adapter: str | None) -> Answer:
        return answer(*loaded(dtype, adapter), prompt)

    return ask_once
