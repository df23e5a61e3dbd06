"""Convert vLLM's outputs to events: deltas, one event per engine step, usage on the last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from trunnion.errors import Cancelled, InternalError
from trunnion.events import ChoiceDelta, FinishReason, GenerateEvent, TokenLogprob, Usage
from trunnion.requests import GenerateRequest
from trunnion.timing import MARKS

_FINISH: Final[dict[str | None, FinishReason | None]] = {
    None: None,
    "stop": "stop",
    "length": "length",
    "repetition": "stop",  # vLLM cut a loop short, as the request asked through extra
}


class EventConverter:
    """Turn the outputs of one request into events. Not shared; keeps the count of completion tokens."""

    __slots__ = ("_completion_tokens", "_logprobs", "_prompt_logprobs", "_text")

    def __init__(self, request: GenerateRequest) -> None:
        """Read from the request what its events must carry."""
        sampling = request.sampling
        self._text = request.detokenize
        self._logprobs = sampling.logprobs
        self._prompt_logprobs = sampling.prompt_logprobs
        self._completion_tokens = 0

    def convert(self, output: Any) -> GenerateEvent:
        """Return the event for one RequestOutput in DELTA or FINAL_ONLY mode.

        Raises:
            Cancelled: The request was aborted from outside.
            InternalError: vLLM gave the request up with an error.
        """
        prompt_tokens = None if self._completion_tokens else len(output.prompt_token_ids or ())
        choices = []
        for piece in output.outputs:
            reason = piece.finish_reason
            if reason is not None and reason not in _FINISH:
                raise _failure(reason)
            token_ids = piece.token_ids
            self._completion_tokens += len(token_ids)
            choices.append(
                ChoiceDelta(
                    index=piece.index,
                    text=piece.text if self._text else "",
                    token_ids=token_ids,
                    logprobs=None if self._logprobs is None else logprobs(token_ids, piece.logprobs, self._logprobs),
                    finish_reason=_FINISH[reason],
                    stop_reason=piece.stop_reason,
                )
            )
        return GenerateEvent(
            choices=tuple(choices),
            usage=self._usage(output) if output.finished else None,
            prompt_logprobs=None if self._prompt_logprobs is None else self._take_prompt_logprobs(output),
            prompt_tokens=prompt_tokens,
        )

    def _usage(self, output: Any) -> Usage:
        times, marks = output.metrics, MARKS.get()
        if times is not None and times.scheduled_ts and marks is not None:  # vLLM takes them with its statistics on
            marks.queued = times.scheduled_ts - times.queued_ts
        return Usage(
            prompt_tokens=len(output.prompt_token_ids),
            completion_tokens=self._completion_tokens,
            cached_tokens=output.num_cached_tokens or 0,
        )

    def _take_prompt_logprobs(self, output: Any) -> tuple[TokenLogprob | None, ...] | None:
        """Convert the prompt's logprobs the first time they are there, and never again."""
        positions, top = output.prompt_logprobs, self._prompt_logprobs
        if not positions or top is None:
            return None
        self._prompt_logprobs = None
        pairs = zip(output.prompt_token_ids, positions, strict=True)
        return tuple(None if entries is None else _token(token, entries, top) for token, entries in pairs)


def _failure(reason: str) -> Exception:
    if reason == "abort":
        return Cancelled("the request was aborted: the engine was stopped, or its caller gave it up")
    return InternalError(f"vLLM ended the request with {reason!r}; its log says why")


def logprobs(
    token_ids: Sequence[int], positions: Sequence[Mapping[int, Any]] | None, top: int
) -> tuple[TokenLogprob, ...]:
    """Return one entry per token; ``positions`` maps token ids to vLLM's Logprob, the chosen token's among them."""
    if not positions:
        return ()
    return tuple(_token(token, entries, top) for token, entries in zip(token_ids, positions, strict=True))


def _token(token: int, entries: Mapping[int, Any], top: int) -> TokenLogprob:
    chosen = entries[token]
    # vLLM adds the chosen token to the likeliest ones, with its true rank; it counts only where it belongs.
    best = sorted(entries.items(), key=lambda item: -item[1].logprob)[:top]
    return TokenLogprob(
        token_id=token,
        token=chosen.decoded_token or "",
        logprob=chosen.logprob,
        top=tuple(TokenLogprob(token_id=t, token=e.decoded_token or "", logprob=e.logprob) for t, e in best),
    )
