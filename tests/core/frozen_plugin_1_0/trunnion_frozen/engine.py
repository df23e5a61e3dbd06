import asyncio
import time

from trunnion import (
    AdapterRef,
    ChoiceDelta,
    Embedding,
    EngineInfo,
    GenerateEvent,
    LoadReport,
    Usage,
)
from trunnion.errors import AdapterNotFound, EngineDead

from .capabilities import CAPABILITIES


class FrozenEngine:
    def __init__(self, model, config):
        self.model, self.config = model, config
        self.running = 0
        self.adapters = {}
        self.started = False

    async def start(self):
        self.started = True
        return EngineInfo(
            engine="frozen",
            model=self.model,
            context_length=100,
            concurrency=4,
            capabilities=CAPABILITIES,
            library="frozen 1.0",
            details={"made": "for 1.0"},
        )

    async def generate(self, request):
        self.running += 1
        try:
            words = (self.config.prefix + request.prompt.text).split()[: request.sampling.max_tokens]
            for place, word in enumerate(words):
                await asyncio.sleep(0)
                last = place == len(words) - 1
                yield GenerateEvent(
                    choices=tuple(
                        ChoiceDelta(
                            index=index,
                            text=word if last else f"{word} ",
                            token_ids=(place,),
                            finish_reason="stop" if last else None,
                        )
                        for index in range(request.sampling.n)
                    ),
                    usage=Usage(prompt_tokens=len(words), completion_tokens=len(words)) if last else None,
                )
        finally:
            self.running -= 1

    async def stop(self, *, drain=0.0):
        self.started = False

    def load(self):
        return LoadReport(running=self.running, waiting=0, timestamp=time.monotonic(), capacity=4)

    async def check_health(self):
        if not self.started:
            raise EngineDead("it was not started; start it")

    async def load_adapter(self, adapter):
        self.adapters[adapter.name] = adapter.path

    async def unload_adapter(self, name):
        if self.adapters.pop(name, None) is None:
            raise AdapterNotFound(f"no adapter is called {name!r}", param="adapter")

    async def list_adapters(self):
        return [AdapterRef(name=name, path=path) for name, path in self.adapters.items()]

    async def embed(self, prompts, *, dimensions=None, adapter=None):
        return [
            Embedding(vector=(float(len(prompt.text)),), usage=Usage(prompt_tokens=1, completion_tokens=0))
            for prompt in prompts
        ]
