"""Decide what the choices of a request say: words, an echo, a script, tool calls, or a demanded format."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from trunnion import GenerateRequest, ToolCallDelta
from trunnion.errors import InvalidArgument

from .answer import Answer
from .config import SimConfig
from .distribution import certain_logprob, table_for, word_logprob
from .scripts import Scripted, ScriptedAnswer
from .structured import may_be_padded, structured_text
from .tokens import WORDS, choose, draw, piece_id, pieces
from .tool_calls import call_tokens, calls_for
from .vocabulary import Vocabulary

_SAID: Final = tuple(f"{word} " for word in WORDS)
_SHOUTED: Final = tuple(text.upper() for text in _SAID)
_GARBAGE: Final = '\x00{"]\ufffd'


class Speaker:
    """Make answers. The same seed, prompt and sampling seed make the same ones."""

    def __init__(self, config: SimConfig, vocabulary: Vocabulary | None = None) -> None:
        self._config = config
        self._vocabulary = vocabulary
        self._size = vocabulary.size if vocabulary is not None else len(WORDS)
        self._names: Sequence[str] | None = None
        self._scripted = Scripted(config.script) if config.script else None

    def answers(
        self, request: GenerateRequest, text: str, prompt_tokens: int, *, malformed: bool = False
    ) -> list[Answer]:
        """Return one answer per choice.

        Raises:
            InvalidArgument: The request contradicts itself, or the script has no answer.
            UnsupportedFeature: A format or a tool asks for more than can be made.
        """
        sampling = request.sampling
        room = self._config.max_model_len - prompt_tokens
        limit = room if sampling.max_tokens is None else sampling.max_tokens
        made = []
        for index in range(sampling.n):
            seed = f"{self._config.seed}/{request.adapter}/{text}"
            if sampling.temperature != 0:
                seed = f"{sampling.seed}/{index}/{seed}"
            answer = self._fixed(request, text, seed, limit)
            if answer is None:
                answer = self._words(request, text, index, min(limit, self._default(request, room)))
            answer.index = index
            if malformed:
                self._garble(answer)
            answer.cut(limit)
            if sampling.stop_token_ids:
                answer.stop_at(sampling.stop_token_ids, first=max(0, (sampling.min_tokens or 0) - 1))
            made.append(answer)
        return made

    def _default(self, request: GenerateRequest, room: int) -> int:
        return room if request.sampling.max_tokens is not None else min(self._config.default_max_tokens, room)

    def _fixed(self, request: GenerateRequest, text: str, seed: str, limit: int) -> Answer | None:
        """Return an answer whose tokens are known beforehand; None if words are to be drawn."""
        scripted = None
        if request.tools or request.tool_choice is not None:
            calls = calls_for(request, seed, count=self._config.tool_calls)
            if self._scripted is not None and request.output_format is None:
                scripted = self._scripted.answer(text)
                calls = [(call.name, call.arguments) for call in scripted.tool_calls]
            if calls:
                said = pieces(scripted.text) if scripted is not None else []
                tokens, deltas = call_tokens(calls, seed)
                deltas = {position + len(said): delta for position, delta in deltas.items()}
                return self._of_pieces(request, [*said, *tokens], limit, calls=deltas, pad=True)
        if request.output_format is not None:
            wanted = structured_text(request.output_format, seed)
            return self._of_pieces(request, pieces(wanted), limit, pad=may_be_padded(request.output_format))
        if self._scripted is not None:
            scripted = self._scripted.answer(text) if scripted is None else scripted
            return self._of_pieces(request, self._script_tokens(scripted), limit, pad=True)
        return None

    @staticmethod
    def _script_tokens(scripted: ScriptedAnswer) -> list[str]:
        """Return the tokens of an answer to a request without tools; calls are written out, as a model would."""
        calls = [json.dumps({"name": c.name, "arguments": c.arguments}) for c in scripted.tool_calls]
        written = [f"<tool_call>\n{call}\n</tool_call>" for call in calls]
        return pieces("\n".join([*filter(None, [scripted.text]), *written]))

    def _of_pieces(
        self,
        request: GenerateRequest,
        tokens: list[str],
        limit: int,
        *,
        pad: bool,
        calls: dict[int, ToolCallDelta] | None = None,
    ) -> Answer:
        sampling = request.sampling
        vocabulary = self._vocabulary
        if vocabulary is not None:
            ids: list[int] = vocabulary.encode("".join(tokens))
        else:
            ids = [piece_id(token) for token in tokens]
        end = len(ids)
        wanted = limit if sampling.ignore_eos else min(sampling.min_tokens or 0, limit)
        if end < wanted and not pad:
            param = "ignore_eos" if sampling.ignore_eos else "min_tokens"
            message = f"the output format ends after {end} tokens, so {param} cannot be met; leave it out"
            raise InvalidArgument(message, param=param)
        if end < wanted:
            blank = piece_id(" ") if vocabulary is None else vocabulary.encode(" ")[-1]
            ids += [blank] * (wanted - end)
            tokens = [*tokens, *([" "] * (wanted - end))]
            if calls:  # blanks behind the arguments
                last = max(delta.index for delta in calls.values())
                calls |= {position: ToolCallDelta(index=last, arguments=" ") for position in range(end, wanted)}
        texts = [("" if calls and position in calls else token) for position, token in enumerate(tokens)]
        answer = Answer(ids, None if vocabulary is not None else texts)
        answer.calls = calls
        answer.reason = "length" if sampling.ignore_eos else "tool_calls" if calls else "stop"
        if sampling.logprobs is not None:
            top = sampling.logprobs
            names = tokens if vocabulary is None else [self._token_names()[token] for token in ids]
            answer.logprob_of = lambda at: certain_logprob(ids[at], names[at], top, WORDS)
        return answer

    def _words(self, request: GenerateRequest, text: str, index: int, limit: int) -> Answer:
        """Return words drawn by seed, or the prompt's own."""
        config, sampling, size = self._config, request.sampling, self._size
        echo = config.output == "echo" and self._vocabulary is None
        spoken: Sequence[str] | None = None if self._vocabulary is not None else _SAID
        natural = config.eos_after
        if echo:
            own = text.split() or [""]
            natural = len(own)
            spoken = [f"{word} " for word in own]
        length = limit
        if natural is not None and not sampling.ignore_eos:
            length = min(limit, max(natural, sampling.min_tokens or 0))
        best = [] if echo else choose(f"{config.seed}/None/{request.adapter}/0/{text}", size, length)
        if echo:
            ids = [position % len(spoken or ()) for position in range(length)]
        elif sampling.temperature == 0:
            ids = best
        else:
            table = table_for(sampling, size)
            drawn = draw(f"{config.seed}/{sampling.seed}/{request.adapter}/{index}/{text}", length)
            ids = [(first + table[byte]) % size for first, byte in zip(best, drawn, strict=True)]
        if request.adapter is not None and spoken is not None:
            spoken = _SHOUTED if spoken is _SAID else [word.upper() for word in spoken]
        answer = Answer(ids, spoken, by_id=True)
        answer.reason = "length" if length == limit else "stop"
        if sampling.logprobs is not None:
            self._add_logprobs(answer, best, sampling.logprobs, spoken)
        return answer

    def _add_logprobs(self, answer: Answer, best: Sequence[int], top: int, spoken: Sequence[str] | None) -> None:
        ids, size = answer.ids, self._size
        names = list(self._token_names() if spoken is None else spoken)
        if best:
            answer.logprob_of = lambda at: word_logprob(ids[at], best[at], size, top, names)
        else:  # an echo has no other choice
            answer.logprob_of = lambda at: certain_logprob(ids[at], names[ids[at]], top, WORDS)

    def _token_names(self) -> Sequence[str]:
        if self._names is None:
            assert self._vocabulary is not None
            self._names = self._vocabulary.names()
        return self._names

    @staticmethod
    def _garble(answer: Answer) -> None:
        """Break off in the middle, with what no format allows."""
        half = max(1, len(answer.ids) // 2)
        texts = answer.texts
        if texts is not None:
            kept = [texts[token] for token in answer.ids[:half]] if answer.by_id else list(texts[:half])
            kept[-1] = _GARBAGE
            answer.texts, answer.by_id = kept, False
        answer.ids = list(answer.ids[:half])
        if answer.calls is not None:
            last = max((p for p in answer.calls if p < half), default=None)
            answer.calls = {position: delta for position, delta in answer.calls.items() if position < half}
            if last is not None:
                answer.calls[last] = ToolCallDelta(
                    index=answer.calls[last].index,
                    id=answer.calls[last].id,
                    name=answer.calls[last].name,
                    arguments=_GARBAGE,
                )
