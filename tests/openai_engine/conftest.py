"""An endpoint for the whole session: our own HTTP surface over the simulated engine."""

import asyncio

import pytest

import trunnion
from trunnion import LoopThread, Pipeline
from trunnion_http import PipelineModel, create_app, make_server


@pytest.fixture(scope="session")
def surface():
    """Serve the simulated engine over HTTP on a thread of its own; yield the base URL."""
    thread = LoopThread("surface")
    lacking = ["sampling.top_k", "sampling.logprobs", "output_format.*", "embeds/1"]
    config = {"tpot": 0.001, "adapters": ["loud"], "output": "echo", "unsupported": lacking}
    spec = trunnion.engine_spec("sim", None, config)

    async def start():
        pipeline = Pipeline(spec)
        await pipeline.start()
        server = make_server(create_app([PipelineModel("m", pipeline)]), port=0)
        serving = asyncio.ensure_future(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        return pipeline, server, serving

    pipeline, server, serving = thread.run(start())
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"

    async def stop():
        server.should_exit = True
        await serving
        await pipeline.stop()

    thread.run(stop())
    thread.close()
