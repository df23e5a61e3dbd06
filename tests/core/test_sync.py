import asyncio
import os
import signal
import threading
import time

import pytest

import trunnion as t
from trunnion.errors import ConfigError, Overloaded, TrunnionError

SIM = {"engine": "sim"}


@pytest.fixture
def loop():
    thread = t.LoopThread("test-loop")
    yield thread
    thread.close()


def test_generate_takes_every_shape():
    conversation = [{"role": "user", "content": "hi"}]
    one = t.generate("hi", **SIM, max_tokens=3)
    assert isinstance(one, str)
    assert len(one.split()) == 3
    assert t.generate(["hi", "hi"], **SIM, max_tokens=3) == [one, one]
    assert t.generate(conversation, **SIM, max_tokens=3) == one
    assert t.generate([conversation, "hi", t.as_prompt("hi")], **SIM, max_tokens=3) == [one] * 3
    assert t.generate(t.as_prompt("hi"), **SIM, max_tokens=3) == one
    assert t.generate(t.TextPrompt(text="a b c"), **SIM, config={"output": "echo"}) == "a b c "
    assert t.generate([], **SIM) == []
    upper = t.generate("hi", **SIM, config={"adapters": ["a"]}, adapter="a", max_tokens=3)
    assert upper == upper.upper()


def test_generate_refuses_what_it_cannot_do():
    with pytest.raises(ConfigError, match="unknown sampling parameter 'temprature'"):
        t.generate("hi", **SIM, temprature=1)
    with pytest.raises(ConfigError, match="n > 1"):
        t.generate("hi", **SIM, n=2)
    with pytest.raises(Overloaded):
        t.generate("hi", **SIM, config={"fault": "refuse"})
    with pytest.raises(TrunnionError, match="did you mean 'sim'"):
        t.generate("hi", engine="simm")
    assert not [thread for thread in threading.enumerate() if thread.name == "trunnion-loop"]


def test_as_prompt():
    assert t.as_prompt("x") == t.MessagesPrompt(messages=({"role": "user", "content": "x"},))
    assert t.as_prompt([{"role": "system", "content": "x"}]).messages[0]["role"] == "system"
    ready = t.TokensPrompt(token_ids=(1,))
    assert t.as_prompt(ready) is ready


def test_a_sync_pipeline_runs_requests_side_by_side():
    spec = t.engine_spec("sim", config={"ttft": 0.2})
    with t.SyncPipeline(spec) as pipeline:
        began = time.perf_counter()
        requests = [t.GenerateRequest(prompt=t.TextPrompt(text=str(i))) for i in range(8)]
        made = pipeline.complete(requests)
        assert time.perf_counter() - began < 1.2
        assert len({completion.text for completion in made}) == 8
    pipeline.close()
    with pytest.raises(ConfigError, match="closed"):
        pipeline.complete(requests)


def test_run_returns_raises_and_refuses(loop):
    async def give(value):
        if isinstance(value, Exception):
            raise value
        return value

    assert loop.run(give(3)) == 3
    with pytest.raises(Overloaded):
        loop.run(give(Overloaded("full")))

    async def inside():
        return loop.run(give(1))

    with pytest.raises(ConfigError, match="own thread"):
        loop.run(inside())


@pytest.fixture
def ctrl_c():
    """Have SIGINT raise KeyboardInterrupt, which a shell's background jobs ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_cancels_the_coroutine(loop):
    state = []

    async def work():
        state.append("started")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            state.append("cancelled")
            raise

    def interrupt():
        while not state:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        loop.run(work())
    loop.close()
    assert state == ["started", "cancelled"]


def test_close_cancels_what_is_left_and_is_idempotent():
    thread = t.LoopThread("test-loop")
    ended = threading.Event()

    async def work():
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    future = thread.submit(work())
    thread.run(asyncio.sleep(0.01))
    thread.close()
    thread.close()
    assert ended.is_set()
    assert future.cancelled()
    assert thread.loop.is_closed()
    with pytest.raises(ConfigError, match="closed"):
        thread.run(asyncio.sleep(0))


def test_a_stuck_task_does_not_hang_close(monkeypatch):
    monkeypatch.setattr("trunnion.sync._PATIENCE", 0.2)
    thread = t.LoopThread("stuck-loop")
    release = threading.Event()

    async def stuck():
        release.wait(30)

    thread.submit(stuck())
    began = time.perf_counter()
    thread.close()
    assert time.perf_counter() - began < 5
    release.set()
    thread._thread.join(5)
    thread.close()


def test_an_exit_inside_a_task_reaches_its_waiter(loop):
    async def leave():
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        loop.run(leave())
    assert loop.run(asyncio.sleep(0, result="alive")) == "alive"


def test_a_loop_of_ones_own_making():
    made = []

    def factory():
        made.append(asyncio.new_event_loop())
        return made[0]

    thread = t.LoopThread(loop_factory=factory)
    assert thread.loop is made[0]
    thread.close()
