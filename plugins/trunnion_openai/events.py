"""Turn what an endpoint answers into events: deltas as they come, usage on the very last one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from trunnion.errors import InternalError, Transient, TrunnionError, UnsupportedFeature
from trunnion.events import ChoiceDelta, FinishReason, GenerateEvent, TokenLogprob, ToolCallDelta, Usage
from trunnion.requests import GenerateRequest, TokensPrompt

from .errors import said_within
from .wire import (
    DECODING_ERRORS,
    ChatBody,
    ChatChoice,
    ChatLogprob,
    CompletionLogprobs,
    Message,
    TextBody,
    TextChoice,
    ToolCallPiece,
    UsageBody,
    any_decoder,
    chat_decoder,
    text_decoder,
    wrong_body,
)

NO_ID: Final = -1
"""Token id of a log probability: the API tells tokens by their text alone."""
_FINISH: Final[dict[str, FinishReason]] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "function_call": "tool_calls",
    # Words of servers that are compatible in all but this.
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "end_turn": "stop",
    "repetition": "stop",
    "max_tokens": "length",
    "model_length": "length",
}
_BROKEN: Final = frozenset({"abort", "error", "cancelled"})


class EventReader:
    """Read the answer to one request: the events of its stream, or one body. Not shared."""

    __slots__ = (
        "_adapter", "_chat", "_counted", "_decode", "_finished", "_logprobs", "_n", "_prompt", "_prompt_top", "_seen",
        "_usage", "where",
    )  # fmt: skip

    def __init__(self, request: GenerateRequest, *, chat: bool, where: str) -> None:
        """Take from the request what its answer must hold; ``where`` names the endpoint in messages."""
        self._chat = chat
        self._decode = chat_decoder.decode if chat else text_decoder.decode
        self._logprobs = request.sampling.logprobs
        self._n = request.sampling.n
        self._adapter = request.adapter
        self._prompt = len(request.prompt.token_ids) if isinstance(request.prompt, TokensPrompt) else 0
        self._prompt_top = request.sampling.prompt_logprobs or 0
        self._finished: set[int] = set()
        self._seen = 0
        self._counted = 0
        self._usage: UsageBody | None = None
        self.where = where

    def feed(self, data: bytes) -> GenerateEvent | None:
        """Return the event for the data of one server-sent event; None where it has nothing new.

        Raises:
            InternalError: It is not JSON of the right shape, or ends in a way nobody knows.
            TrunnionError: It tells of a failure.
        """
        try:
            body: Any = self._decode(data)
        except DECODING_ERRORS as error:
            raise wrong_body(self.where, data, error) from error
        if body.usage is not None:
            self._usage = body.usage
        choices = body.choices
        if not choices:
            if choices is None and body.usage is None:
                raise self._no_answer(body, data)
            return None
        if len(choices) == 1:
            choice = choices[0]
            if self._chat:
                delta = choice.delta
                # The common case by far: text for one choice and nothing else.
                if (
                    delta is not None
                    and delta.content
                    and choice.finish_reason is None
                    and delta.reasoning_content is None
                    and delta.reasoning is None
                    and delta.tool_calls is None
                    and delta.refusal is None
                    and choice.logprobs is None
                    and choice.token_ids is None
                ):
                    if choice.index >= self._seen:
                        self._seen = choice.index + 1
                    return GenerateEvent(choices=(ChoiceDelta(index=choice.index, text=delta.content),))
                made = self._chat_choice(choice, delta)
            else:
                made = self._text_choice(choice)
            return None if made is None else GenerateEvent(choices=(made,))
        read: Any = self._text_choice
        deltas = [self._chat_choice(c, c.delta) if self._chat else read(c) for c in choices]
        kept = tuple(delta for delta in deltas if delta is not None)
        return GenerateEvent(choices=kept) if kept else None

    def whole(self, data: bytes) -> GenerateEvent:
        """Return the one event for an answer that was not streamed; raises as :meth:`feed` and :meth:`end` do."""
        try:
            body: ChatBody | TextBody = self._decode(data)
        except DECODING_ERRORS as error:
            raise wrong_body(self.where, data, error) from error
        if not body.choices:
            raise self._no_answer(body, data)
        self._usage = body.usage
        choices: list[ChoiceDelta] = []
        prompt: Any = None
        for choice in body.choices:
            if isinstance(choice, ChatChoice):
                if choice.message is None:
                    raise self._no_answer(body, data)
                delta = self._chat_choice(choice, choice.message)
            else:
                delta = self._text_choice(choice)
                prompt = prompt or choice.prompt_logprobs
            if delta is not None:
                choices.append(delta)
        if isinstance(body, ChatBody):
            prompt = body.prompt_logprobs
        last = self.end()
        logprobs = None if prompt is None else tuple(_prompt_logprob(one, self._prompt_top) for one in prompt)
        return GenerateEvent(choices=tuple(choices), usage=last.usage, prompt_logprobs=logprobs)

    def end(self) -> GenerateEvent:
        """Return the terminal event, once the answer said that it is done.

        Where the endpoint reports no usage, the tokens that can be seen are counted: those of a prompt of token ids,
        and completion tokens that came with their ids or log probabilities; what cannot be seen counts 0.

        Raises:
            Transient: A choice was cut short.
            UnsupportedFeature: There are fewer choices than were asked for.
        """
        if self._seen < self._n and len(self._finished) == self._seen and self._seen:
            message = f"{self.where} gave {self._seen} of {self._n} choices: it does not know n; send n requests"
            raise UnsupportedFeature(message, param="n")
        if len(self._finished) < self._n:
            raise self.cut("without a finish reason")
        usage = self._usage
        if usage is None or usage.completion_tokens is None:
            prompt = self._prompt if usage is None or usage.prompt_tokens is None else usage.prompt_tokens
            return GenerateEvent(usage=Usage(prompt_tokens=prompt, completion_tokens=self._counted))
        return GenerateEvent(usage=read_usage(usage))

    def cut(self, how: str) -> Transient:
        """Return the error for an answer that ends too early."""
        return Transient(f"{self.where} cut its answer short, {how}; send the request again")

    def _no_answer(self, body: Any, data: bytes) -> TrunnionError:
        if body.error is not None:
            return said_within(body.error, where=self.where, adapter=self._adapter)
        return wrong_body(self.where, data, ValueError("there are no choices in it"))

    def error(self, data: bytes) -> TrunnionError:
        """Return the error that the data of an error event tells."""
        try:
            said = any_decoder.decode(data)
        except DECODING_ERRORS:
            said = data.decode("utf-8", "replace")
        return said_within(said, where=self.where, adapter=self._adapter)

    def _finish(self, index: int, reason: str | None) -> FinishReason | None:
        if index >= self._seen:
            self._seen = index + 1
        if reason is None:
            return None
        known = _FINISH.get(reason)
        if known is None:
            if reason in _BROKEN:
                raise Transient(f"{self.where} gave the request up ({reason}); send it again")
            raise InternalError(f"{self.where} ended a choice for a reason that nobody knows: {reason!r}")
        if index in self._finished:
            return None
        self._finished.add(index)
        return known

    def _chat_choice(self, choice: ChatChoice, message: Message | None) -> ChoiceDelta | None:
        reason = self._finish(choice.index, choice.finish_reason)
        logprobs = None
        if self._logprobs is not None and choice.logprobs is not None and choice.logprobs.content is not None:
            logprobs = tuple(_chat_logprob(one) for one in choice.logprobs.content)
        text = reasoning = ""
        calls: tuple[ToolCallDelta, ...] = ()
        if message is not None:
            text = message.content or ""
            if message.refusal:
                text += message.refusal  # the model's own words, where it will not keep to a format
            reasoning = message.reasoning_content or message.reasoning or ""
            if message.tool_calls:
                calls = _tool_calls(message.tool_calls)
        self._counted += len(choice.token_ids or logprobs or ())
        if not (text or reasoning or calls or logprobs or choice.token_ids) and reason is None:
            return None
        return ChoiceDelta(
            index=choice.index,
            text=text,
            token_ids=choice.token_ids or (),
            reasoning=reasoning,
            tool_calls=calls,
            logprobs=logprobs,
            finish_reason=reason,
            stop_reason=choice.stop_reason if reason is not None else None,
        )

    def _text_choice(self, choice: TextChoice) -> ChoiceDelta | None:
        reason = self._finish(choice.index, choice.finish_reason)
        logprobs = None
        if self._logprobs is not None and choice.logprobs is not None:
            logprobs = _text_logprobs(choice.logprobs, self._logprobs)
        self._counted += len(choice.token_ids or logprobs or ())
        if not (choice.text or logprobs or choice.token_ids) and reason is None:
            return None
        return ChoiceDelta(
            index=choice.index,
            text=choice.text or "",
            token_ids=choice.token_ids or (),
            logprobs=logprobs,
            finish_reason=reason,
            stop_reason=choice.stop_reason if reason is not None else None,
        )


def read_usage(usage: UsageBody) -> Usage:
    """Return the counts; what the endpoint leaves out is 0."""
    cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else None
    reasoning = usage.completion_tokens_details.reasoning_tokens if usage.completion_tokens_details else None
    return Usage(
        prompt_tokens=usage.prompt_tokens or 0,
        completion_tokens=usage.completion_tokens or 0,
        cached_tokens=cached or 0,
        reasoning_tokens=reasoning or 0,
    )


def _tool_calls(pieces: Sequence[ToolCallPiece]) -> tuple[ToolCallDelta, ...]:
    made = []
    for place, piece in enumerate(pieces):
        function = piece.function
        name = None if function is None else function.name
        arguments = "" if function is None else function.arguments or ""
        index = place if piece.index is None else piece.index
        made.append(ToolCallDelta(index=index, id=piece.id, name=name, arguments=arguments))
    return tuple(made)


def _chat_logprob(one: ChatLogprob) -> TokenLogprob:
    top = tuple(TokenLogprob(token_id=NO_ID, token=t.token, logprob=t.logprob) for t in one.top_logprobs or ())
    return TokenLogprob(token_id=NO_ID, token=one.token, logprob=one.logprob, top=top)


def _text_logprobs(given: CompletionLogprobs, top: int) -> tuple[TokenLogprob, ...]:
    tops = given.top_logprobs or [None] * len(given.tokens)
    return tuple(
        TokenLogprob(token_id=NO_ID, token=token, logprob=logprob or 0.0, top=_likeliest(best, top))
        for token, logprob, best in zip(given.tokens, given.token_logprobs, tops, strict=False)
    )


def _likeliest(entries: Mapping[str, float] | None, top: int) -> tuple[TokenLogprob, ...]:
    """Return the likeliest ``top`` entries: the API adds the chosen token where it is not among them."""
    ordered = sorted((entries or {}).items(), key=lambda item: -item[1])[:top]
    return tuple(TokenLogprob(token_id=NO_ID, token=token, logprob=logprob) for token, logprob in ordered)


def _prompt_logprob(entries: Any, top: int) -> TokenLogprob | None:
    """Return one token of the prompt, as vLLM writes it: by token id, the token itself first."""
    if not isinstance(entries, Mapping) or not entries:
        return None
    tokens = [
        TokenLogprob(token_id=int(key), token=entry.get("decoded_token") or "", logprob=entry["logprob"])
        for key, entry in entries.items()
    ]
    best = sorted(tokens, key=lambda token: -token.logprob)[:top]
    return TokenLogprob(token_id=tokens[0].token_id, token=tokens[0].token, logprob=tokens[0].logprob, top=tuple(best))
