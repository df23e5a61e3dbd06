"""A scripted model, and a server that runs in a thread."""

import asyncio
import itertools
import threading
import time

from trunnion.capabilities import Capabilities
from trunnion.engine import Embedding, EngineInfo
from trunnion.errors import UnsupportedFeature
from trunnion.events import ChoiceDelta, GenerateEvent, TokenLogprob, ToolCallDelta, Usage
from trunnion_http import make_server

_names = itertools.count()


class FakeModel:
    """Yield scripted pieces; count the slots that are taken; fail when told to."""

    def __init__(self, name=None, *, pieces=("Hel", "lo", " wörld"), delay=0.0, adapters=(), embeds=True, **behaviour):
        self.name = name or f"fake-{next(_names)}"
        self.pieces = list(pieces)
        self.delay = delay
        self.adapters = set(adapters)
        self.ready = True
        self.refuse = behaviour.pop("refuse", None)
        self.die_after = behaviour.pop("die_after", None)  # (events, exception)
        self.tool_call = behaviour.pop("tool_call", None)  # (name, [argument pieces])
        self.reasoning = behaviour.pop("reasoning", None)
        self.finish = behaviour.pop("finish", "stop")
        self.stopped_by = behaviour.pop("stopped_by", None)
        self.truncated = behaviour.pop("truncated", False)
        self.unhealthy = behaviour.pop("unhealthy", None)
        assert not behaviour, behaviour
        self.info = EngineInfo(
            engine="fake",
            model="fake",
            context_length=128,
            capabilities=Capabilities.of(protocols=["embeds/1"] if embeds else []),
            library="fake 1.0",
        )
        self.requests = []
        self.embedded = []
        self.slots = 0
        self.peak = 0

    @property
    def last(self):
        return self.requests[-1]

    async def generate(self, request):
        self.requests.append(request)
        if self.refuse is not None:
            raise self.refuse
        self.slots += 1
        self.peak = max(self.peak, self.slots)
        try:
            async for event in self._script(request):
                yield event
        finally:
            self.slots -= 1

    async def _script(self, request):
        n, sent = request.sampling.n, 0
        for number, piece in enumerate(self.pieces):
            if self.die_after is not None and number == self.die_after[0]:
                raise self.die_after[1]
            if self.delay:
                await asyncio.sleep(self.delay)
            sent += 1
            choices = tuple(self._delta(request, i, piece, first=number == 0) for i in range(n))
            yield GenerateEvent(choices=choices)
        if self.truncated:
            return
        reason = "tool_calls" if self.tool_call else self.finish
        calls = [ChoiceDelta(index=i, finish_reason=reason, stop_reason=self.stopped_by) for i in range(n)]
        if self.tool_call:
            name, parts = self.tool_call
            yield GenerateEvent(
                choices=(ChoiceDelta(tool_calls=(ToolCallDelta(index=0, id="call_1", name=name),)),),
            )
            for part in parts:
                delta = ToolCallDelta(index=0, arguments=part)
                yield GenerateEvent(choices=(ChoiceDelta(tool_calls=(delta,)),))
        usage = Usage(prompt_tokens=7, completion_tokens=sent * n, cached_tokens=4, reasoning_tokens=0)
        yield GenerateEvent(choices=tuple(calls), usage=usage)

    def _delta(self, request, index, piece, *, first):
        logprobs = None
        if request.sampling.logprobs is not None:
            top = tuple(
                TokenLogprob(token_id=i, token=f"t{i}", logprob=-float(i) if i else float("-inf"))
                for i in range(request.sampling.logprobs)
            )
            logprobs = (TokenLogprob(token_id=1, token=piece, logprob=-0.5, top=top),)
        reasoning = self.reasoning if first and self.reasoning else ""
        return ChoiceDelta(index=index, text=piece, token_ids=(1,), logprobs=logprobs, reasoning=reasoning)

    async def embed(self, prompts, *, dimensions=None, adapter=None):
        if "embeds/1" not in self.info.capabilities.protocols:
            raise UnsupportedFeature("this model makes no embeddings", param="model")
        self.embedded.append((list(prompts), dimensions, adapter))
        usage = Usage(prompt_tokens=3, completion_tokens=0)
        return [Embedding(vector=[0.5, -0.25, float(i)][: dimensions or 3], usage=usage) for i, _ in enumerate(prompts)]

    async def check_health(self):
        if self.unhealthy is not None:
            raise self.unhealthy

    def wait_free(self, seconds=1.0):
        """Return whether all slots were free within the time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.slots == 0:
                return True
            time.sleep(0.01)
        return False

    def wait_taken(self, slots=1, seconds=5.0):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.slots >= slots:
                return True
            time.sleep(0.01)
        return False


class RunningServer:
    """Run an app on a free port in a thread of its own."""

    def __init__(self, app):
        self.app = app
        self.server = make_server(app, port=0, shutdown_timeout=2.0)
        self.thread = threading.Thread(target=self.server.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        end = time.monotonic() + 60
        while not self.server.started:
            assert self.thread.is_alive(), "the server died at its start"
            assert time.monotonic() < end, "the server did not start in time"
            time.sleep(0.01)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    def __exit__(self, *exc):
        self.server.should_exit = True
        self.thread.join(10)
        assert not self.thread.is_alive()
