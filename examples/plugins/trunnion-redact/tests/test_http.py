"""The plugin behind the OpenAI surface, in one process, asked by the real client."""

import asyncio
import socket
import time

import pytest
import trunnion as t
from conftest import REFUSES_VALUES
from serving import check
from trunnion_http import PipelineModel, create_app, make_server


@pytest.fixture
def url():
    thread = t.LoopThread("server")
    spec = t.PipelineSpec(
        engine=t.engine_spec("sim", None, REFUSES_VALUES), hooks={"redact": {"kinds": ["email", "phone"]}}
    )
    pipeline = t.Pipeline(spec)
    thread.run(pipeline.start())
    server = make_server(create_app([PipelineModel("m", pipeline)]))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        serving = thread.submit(server.serve(sockets=[listener]))
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        serving.result(30)
    thread.run(pipeline.stop())
    thread.run(asyncio.sleep(0))
    thread.close()


def test_clients_get_values_and_the_engine_placeholders(url):
    check(url)
