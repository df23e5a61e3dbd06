"""A stand-in for AsyncLLM, for what no CPU build can do and for moments that a real engine does not hold still for."""

import asyncio
from types import SimpleNamespace


class FakeLLM:
    """Record what is asked of vLLM; ``gate`` holds back whatever loads or unloads until it is set."""

    def __init__(self, **model):
        self.calls = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.fails = set()
        self.held = []
        self.errored = False
        self.vllm_config = SimpleNamespace(
            model_config=SimpleNamespace(enable_sleep_mode=True, **model), lora_config=object(), kv_events_config=None
        )
        self.output_processor = SimpleNamespace(request_states={})

    async def add_lora(self, request):
        await self.gate.wait()
        self.calls.append(("add", request.lora_name))
        if request.lora_path in self.fails:
            raise ValueError(f"Loading lora {request.lora_name} failed: No adapter found for {request.lora_path}")
        self.held.append(request.lora_int_id)
        return True

    async def remove_lora(self, number):
        await self.gate.wait()
        self.calls.append(("remove", number))
        self.held.remove(number)
        return True

    async def sleep(self, level=1):
        await self.gate.wait()
        self.calls.append(("sleep", level))

    async def wake_up(self, tags=None):
        self.calls.append(("wake_up", tags))

    async def collective_rpc(self, method):
        self.calls.append((method,))

    async def check_health(self):
        self.calls.append(("health",))

    async def abort(self, ids, *, internal):
        self.calls.append(("abort",))

    def shutdown(self, timeout=None):
        self.calls.append(("shutdown",))
