"""Make requests and ask a mounted engine, through the pipeline as users do or directly as the pipeline does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, NoReturn

import pytest

from trunnion.capabilities import Support, used_features
from trunnion.completion import Completion
from trunnion.errors import TrunnionError, UnsupportedFeature
from trunnion.events import GenerateEvent
from trunnion.preparation import Prepared
from trunnion.requests import ChatMessage, GenerateRequest, MessagesPrompt, Prompt, SamplingParams, TextPrompt
from trunnion.sync import as_prompt

from . import advice
from .examples import EXAMPLES
from .mount import Mount

PromptLike = str | Sequence[ChatMessage] | Prompt
_LONG = 400
"""Tokens of an answer that is to be interrupted."""


class Ask:
    """Ask one mounted engine. Fields of the sampling parameters and of the request are given by name.

    Greedy and short unless a test says otherwise.
    """

    def __init__(
        self,
        mount: Mount,
        prompt: PromptLike,
        *,
        tokenizer: str | None = None,
        adapters: Mapping[str, str] | None = None,
        lacking: Callable[[str], NoReturn] = pytest.fail,
    ) -> None:
        """Take what the suite gives: prompt, tokenizer, adapters (name to path), and what to do without something."""
        self.mount = mount
        self.lacking = lacking
        self.adapters = adapters or {}
        self.prompt = self._usable(prompt)
        self._tokenizer = tokenizer

    def _usable(self, prompt: PromptLike) -> Prompt:
        """Return a message for models that chat, plain text for those that only continue."""
        made = as_prompt(prompt)
        if isinstance(prompt, str):
            outcome = self.mount.pipeline.prepare([GenerateRequest(prompt=made)])[0]
            if isinstance(outcome, TrunnionError):
                return TextPrompt(text=prompt)
        return made

    def variant(self, number: int) -> Prompt:
        """Return the prompt with a number before it (``"3: ..."``), for answers that differ.

        In a conversation the number goes before the content of the last message; token ids stay as they are.
        """
        prompt = self.prompt
        if isinstance(prompt, TextPrompt):
            return TextPrompt(text=f"{number}: {prompt.text}")
        if isinstance(prompt, MessagesPrompt):
            *before, last = prompt.messages
            changed: Any = {**last, "content": f"{number}: {last.get('content')}"}
            return as_prompt([*before, changed])
        return prompt

    def repeated(self) -> Prompt:
        """Return a prompt of several hundred tokens, long enough to fill blocks of a prefix cache."""
        context = self.mount.info.context_length or 4096
        text = "Write a haiku about the sea. " * min(40, max(1, context // 20))
        return self._usable(text)

    def short(self) -> Prompt:
        """Return a prompt of a few tokens."""
        return self._usable("Hi")

    def accepts(self, feature: str) -> bool:
        """Tell whether a request with the feature is sent: declared *yes* or *unknown*, or a stage supplies it."""
        if self.mount.info.capabilities.support(feature) is not Support.NO:
            return True
        request = GenerateRequest(prompt=self.prompt)
        fields = dict(EXAMPLES[feature])
        sampling = {name: fields.pop(name) for name in SamplingParams.__dataclass_fields__ if name in fields}
        request = request.with_(sampling=SamplingParams(**sampling), **fields)
        outcome = self.mount.pipeline.prepare([request])[0]
        refused = isinstance(outcome, UnsupportedFeature) and outcome.details.get("feature")
        return refused not in used_features(request)  # tool_choice comes with tools, which may be what is refused

    def only_if(self, feature: str, **fields: Any) -> dict[str, Any]:
        """Return the fields where the engine takes their feature, else nothing."""
        return fields if self.accepts(feature) else {}

    def request(self, prompt: Prompt | None = None, **fields: Any) -> GenerateRequest:
        """Make a request, as a user would."""
        sampling: dict[str, Any] = {
            **self.only_if("sampling.temperature", temperature=0.0),
            **self.only_if("sampling.max_tokens", max_tokens=24),
        }
        for name in list(fields):
            if name in SamplingParams.__dataclass_fields__:
                sampling[name] = fields.pop(name)
        return GenerateRequest(prompt=prompt or self.prompt, sampling=SamplingParams(**sampling), **fields)

    def prepared(self, prompt: Prompt | None = None, **fields: Any) -> GenerateRequest:
        """Make a request as the engine gets it: templated and tokenized if it wants that."""
        outcome = self.mount.pipeline.prepare([self.request(prompt, **fields)])[0]
        if isinstance(outcome, TrunnionError):
            raise outcome
        assert isinstance(outcome, Prepared)
        return outcome.request

    def __call__(self, prompt: Prompt | None = None, **fields: Any) -> Completion:
        """Ask through the pipeline, and return the whole answer."""
        return self.mount.run(self.mount.pipeline.complete(self.request(prompt, **fields)))

    def many(self, *several: Mapping[str, Any]) -> list[Completion]:
        """Ask for several answers side by side, and return them in order."""
        requests = [self.request(**fields) for fields in several]

        async def all_of_them() -> list[Completion]:
            return await asyncio.gather(*map(self.mount.pipeline.complete, requests))

        return self.mount.run(all_of_them())

    def texts(self, *several: Mapping[str, Any]) -> list[str]:
        """Return the texts of answers that were made side by side."""
        return [completion.text for completion in self.many(*several)]

    def events(self, prompt: Prompt | None = None, **fields: Any) -> list[GenerateEvent]:
        """Ask the engine itself, and return every event."""
        return self.mount.run(drained(self.mount, self.prepared(prompt, **fields)))

    def long(self, **fields: Any) -> dict[str, Any]:
        """Return fields that make an answer too long to end by itself while a test looks at it."""
        context = self.mount.info.context_length
        length = _LONG if context is None else max(1, min(_LONG, context // 2))
        endless = self.only_if("sampling.ignore_eos", ignore_eos=True)
        return {**self.only_if("sampling.max_tokens", max_tokens=length), **endless, **fields}

    def token_ids(self, text: str) -> list[int]:
        """Return the tokens of a text. Fails the test where no tokenizer is known."""
        reference = self.mount.info.tokenizer
        path = self._tokenizer or (None if reference is None else reference.path)
        if path is None:
            self.lacking(f"the engine names no tokenizer; {advice.TOKENIZER}")
        tokenizers: Any = pytest.importorskip("transformers")
        ids = tokenizers.AutoTokenizer.from_pretrained(path)(text, add_special_tokens=False).input_ids
        return list(map(int, ids))


async def drained(mount: Mount, request: GenerateRequest) -> list[GenerateEvent]:
    """Return every event the engine itself yields for a request that was prepared."""
    async with aclosing(mount.engine.generate(request)) as events:
        return [event async for event in events]


def whole(events: Sequence[GenerateEvent]) -> Completion:
    """Join events to a completion."""
    completion = Completion()
    for event in events:
        completion.add(event)
    return completion
