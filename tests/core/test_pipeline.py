import asyncio
import dataclasses
import threading
import time
from contextlib import aclosing

import fake_engines as fake
import pytest
from fake_engines import HELLO, FakeEngine, event, opened, request

import trunnion as t
from trunnion.errors import (
    Cancelled,
    ConfigError,
    DeadlineExceeded,
    InternalError,
    InvalidArgument,
    Overloaded,
    PluginNotFound,
    UnsupportedFeature,
)
from trunnion.pooling import PoolingRequest


async def run(engine, req=None, **parts):
    async with opened(engine, **parts) as pipeline:
        return await pipeline.complete(req or request())


async def failure(engine, req=None, *, error, **parts):
    async with opened(engine, **parts) as pipeline:
        with pytest.raises(error) as caught:
            await pipeline.complete(req or request())
    assert type(caught.value) is error
    assert engine.running == 0
    return caught.value


async def test_events_come_through_and_are_collected():
    engine = FakeEngine()
    async with opened(engine) as pipeline:
        assert [e async for e in pipeline.generate(request())] == list(HELLO)
        made = await pipeline.complete(request())
        assert (made.text, made.usage, made.choices[0].finish_reason) == ("hello world", HELLO[-1].usage, "stop")
        assert pipeline.info is engine.info
        assert pipeline.load() is None
    assert engine.log == ["start", "closed", "closed", "stop"]


async def test_the_engine_gets_the_request_as_it_is():
    engine, req = FakeEngine(), request(sampling=t.SamplingParams(seed=4), extra={"fake": {"x": 1}})
    await run(engine, req)
    assert engine.requests == [req]
    assert engine.requests[0] is req


async def test_capabilities_are_enforced_before_the_engine():
    engine = FakeEngine()
    refused = [
        (request(adapter="a"), "adapter"),
        (request(sampling=t.SamplingParams(stop="x")), "stop"),
        (request(extra={"vllm": {}}), "extra.vllm"),
        (request(prompt=t.MessagesPrompt(messages=())), "prompt"),
    ]
    for req, param in refused:
        error = await failure(engine, req, error=UnsupportedFeature)
        assert error.param == param
    assert engine.requests == []
    await run(engine, request(priority=5))  # unknown: sent


async def test_a_prompt_of_no_kind_is_refused_in_words():
    error = await failure(FakeEngine(), request(prompt="hello"), error=InvalidArgument)
    assert error.param == "prompt"
    assert "trunnion.as_prompt" in error.message


# --- deadlines


async def test_a_deadline_aborts_the_engine_and_frees_the_slot():
    engine = FakeEngine([event("a "), "hang"])
    began = time.perf_counter()
    error = await failure(engine, request(deadline=time.time() + 0.1), error=DeadlineExceeded)
    assert 0.05 < time.perf_counter() - began < 2
    assert error.param == "deadline"
    assert asyncio.current_task().cancelling() == 0


async def test_a_deadline_that_has_passed_never_reaches_the_engine():
    engine = FakeEngine()
    await failure(engine, request(deadline=time.time() - 1), error=DeadlineExceeded)
    assert engine.requests == []


async def test_a_deadline_holds_an_engine_that_never_awaits():
    def script(_):
        while True:
            time.sleep(0.01)
            yield event("a ")

    await failure(FakeEngine(script), request(deadline=time.time() + 0.05), error=DeadlineExceeded)


async def test_a_deadline_holds_a_slow_reader():
    engine = FakeEngine([event("a "), event("b "), event("c", finish="stop", usage=3)])
    async with opened(engine) as pipeline, aclosing(pipeline.generate(request(deadline=time.time() + 0.05))) as events:
        await anext(events)
        await asyncio.sleep(0.1)
        with pytest.raises(DeadlineExceeded):
            await anext(events)
        assert engine.running == 0


async def test_a_timeout_of_the_engine_is_no_deadline():
    error = await failure(FakeEngine([TimeoutError("mine")]), request(deadline=time.time() + 60), error=InternalError)
    assert "raised TimeoutError" in error.message


async def test_a_request_in_time_is_unharmed():
    assert (await run(FakeEngine([0.01, *HELLO]), request(deadline=time.time() + 60))).text == "hello world"
    await asyncio.sleep(0)


@pytest.mark.parametrize("swallow", ["yields", "raises"])
async def test_a_deadline_holds_an_engine_that_swallows_its_cancellation(swallow):
    class Stubborn(FakeEngine):
        async def generate(self, request):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if swallow == "raises":
                    raise Cancelled("aborted") from None
            yield event("late", finish="stop", usage=1)

    await failure(Stubborn(), request(deadline=time.time() + 0.05), error=DeadlineExceeded)
    assert asyncio.current_task().cancelling() == 0


async def test_the_callers_cancellation_is_not_a_deadline():
    engine = FakeEngine(["hang"])
    async with opened(engine) as pipeline:
        task = asyncio.create_task(pipeline.complete(request(deadline=time.time() + 60)))
        await asyncio.sleep(0.01)
        assert engine.running == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert engine.running == 0


# --- giving up


@pytest.mark.parametrize("deadline", [None, 60])
async def test_aclose_frees_the_slot(deadline):
    engine = FakeEngine([event("a "), "hang"])
    req = request(deadline=None if deadline is None else time.time() + deadline)
    async with opened(engine) as pipeline:
        events = pipeline.generate(req)
        assert (await anext(events)).choices[0].text == "a "
        assert engine.running == 1
        await events.aclose()
        assert engine.running == 0
        unread = pipeline.generate(req)
        await unread.aclose()
        assert len(engine.requests) == 1


async def test_a_forgotten_generator_frees_the_slot():
    engine = FakeEngine([event("a "), "hang"])
    async with opened(engine) as pipeline:
        async for _ in pipeline.generate(request()):
            break
        for _ in range(10):
            await asyncio.sleep(0)
        assert engine.running == 0


async def test_an_engine_that_cancels_by_itself_does_not_cancel_its_caller():
    error = await failure(FakeEngine([asyncio.CancelledError()]), error=InternalError)
    assert "nobody gave up" in error.message


# --- careless engines


async def test_foreign_exceptions_become_internal_errors():
    error = await failure(FakeEngine([event("a "), KeyError("oops")]), error=InternalError)
    assert isinstance(error.__cause__, KeyError)
    assert "engine 'fake' raised KeyError, not an error of trunnion.errors: 'oops'" in error.message
    error = await failure(FakeEngine([Overloaded("full", retry_after=3)]), error=Overloaded)
    assert error.retry_after == 3


async def test_a_generate_that_raises_at_once_is_mapped_too():
    class Eager(FakeEngine):
        def generate(self, request):
            raise ValueError("not a generator")

    assert "ValueError" in (await failure(Eager(), error=InternalError)).message


@pytest.mark.parametrize("script", [[], [event("a")], [*HELLO, event("more")]])
async def test_a_stream_without_its_terminal_event_is_an_error(script):
    error = await failure(FakeEngine(script), error=InternalError)
    assert "without usage on its last event" in error.message


# --- start and stop


async def test_it_is_started_once():
    engine = FakeEngine()
    async with opened(engine) as pipeline:
        with pytest.raises(ConfigError, match="started or stopped before"):
            await pipeline.start()
        assert engine.log == ["start"]


async def test_before_start_nothing_works_but_stop():
    engine = FakeEngine()
    pipeline = t.Pipeline(t.EngineSpec(engine="fake"), registry=fake.registry(engine))
    for use in (lambda: pipeline.info, pipeline.explain, lambda: pipeline.prepare([request()])):
        with pytest.raises(ConfigError, match="has not been started"):
            use()
    with pytest.raises(ConfigError):
        await pipeline.complete(request())
    await pipeline.stop()
    await pipeline.stop()
    with pytest.raises(ConfigError, match="started or stopped before"):
        await pipeline.start()
    assert engine.log == ["stop", "stop"]


@pytest.mark.parametrize(("start", "error"), [(Overloaded("no room"), Overloaded), (OSError("no file"), InternalError)])
async def test_a_failed_start_stops_the_engine(start, error):
    engine = FakeEngine(start=start, stop=RuntimeError("worse"))
    pipeline = t.Pipeline(t.EngineSpec(engine="fake"), registry=fake.registry(engine))
    with pytest.raises(error, match=r"no room|did not start: OSError: no file"):
        await pipeline.start()
    assert engine.log == ["start", "stop"]


async def test_a_stage_that_cannot_be_built_stops_the_engine():
    engine = FakeEngine()
    listed = (t.StageSpec(stage="nobody"),)
    with pytest.raises(PluginNotFound, match="nobody"):
        async with opened(engine, listed=listed):
            pass
    assert engine.log == ["start", "stop", "stop"]


# --- stages


class Upper:
    """Turn text prompts into capitals; refuse some and trip over others."""

    def process(self, items):
        return [self._one(item) for item in items]

    def _one(self, item):
        if item.prompt.text == "bad":
            return InvalidArgument("bad row")
        return item.with_(prompt=t.TextPrompt(text=item.prompt.text.upper()))


KEEP = {"name": "upper", "automatic": False}
LISTED = (t.StageSpec(stage="upper"),)


def text(value, **more):
    return request(prompt=t.TextPrompt(text=value), **more)


async def test_prepare_gives_an_error_per_item_in_order():
    engine = FakeEngine()
    async with opened(engine, listed=LISTED, stages=[(KEEP, Upper())]) as pipeline:
        rows = [text("a"), text("bad"), request(adapter="x"), text("b"), text("c", sampling=t.SamplingParams(stop="x"))]
        results = pipeline.prepare(rows)
        kinds = [type(result) for result in results]
        assert kinds == [t.Prepared, InvalidArgument, UnsupportedFeature, t.Prepared, UnsupportedFeature]
        assert [r.request.prompt.text for r in results if isinstance(r, t.Prepared)] == ["A", "B"]
        await pipeline.complete(results[3])
        assert engine.requests[0].prompt.text == "B"
        assert pipeline.prepare([]) == []


class Broken:
    def __init__(self, outcome) -> None:
        self.outcome = outcome

    def process(self, items):
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@pytest.mark.parametrize(
    ("outcome", "error", "words"),
    [
        (KeyError("oops"), InternalError, "stage 'upper' raised KeyError: 'oops'"),
        (Overloaded("full"), Overloaded, "full"),
        ([], InternalError, "returned 0 results for 2 requests"),
        (None, InternalError, "TypeError"),
        ([1, 2], InternalError, "returned int, neither a request nor an error"),
    ],
)
async def test_a_careless_stage_fails_its_rows_and_not_the_job(outcome, error, words):
    async with opened(FakeEngine(), listed=LISTED, stages=[(KEEP, Broken(outcome))]) as pipeline:
        results = pipeline.prepare([text("a"), text("b")])
        assert [type(result) for result in results] == [error, error]
        assert words in results[0].message
        with pytest.raises(error):
            await pipeline.complete(text("a"))


class Demands:
    """Ask for something of its own."""

    def __init__(self, **fields) -> None:
        self.fields = fields

    def process(self, items):
        return [item.with_(**self.fields) for item in items]


async def test_what_a_stage_demands_is_checked_too():
    for fields in ({"output_format": t.JsonObject()}, {"sampling": t.SamplingParams(stop="x")}, {"adapter": "a"}):
        async with opened(FakeEngine(), listed=LISTED, stages=[(KEEP, Demands(**fields))]) as pipeline:
            with pytest.raises(UnsupportedFeature):
                await pipeline.complete(text("a"))


class Stop:
    """End the text at "STOP"."""

    def __init__(self, *, open_error=None, feed_error=None) -> None:
        self.open_error, self.feed_error, self.seen = open_error, feed_error, []

    def open(self, req):
        self.seen.append(req)
        if self.open_error is not None:
            raise self.open_error
        return _Stopper(self.feed_error) if req.sampling.stop else None


class _Stopper:
    def __init__(self, error) -> None:
        self.done, self.error = False, error

    def feed(self, e):
        if self.error is not None:
            raise self.error
        if self.done:
            return []
        [choice] = e.choices
        if "STOP" in choice.text:
            self.done = True
            ended = dataclasses.replace(choice, text=choice.text.partition("STOP")[0], finish_reason="stop")
            return [dataclasses.replace(e, choices=(ended,))]
        return [e]

    def finish(self):
        return []


STOP = {"name": "stop", "shape": "stream", "supplies": frozenset({"sampling.stop"})}


async def test_a_stream_stage_ends_generation_early_and_usage_is_made():
    engine, stage = FakeEngine([event("a b "), event("c STOP d"), "hang"]), Stop()
    req = request(sampling=t.SamplingParams(stop="STOP", seed=1))
    async with opened(engine, stages=[(STOP, stage)]) as pipeline:
        events = [e async for e in pipeline.generate(req)]
        assert engine.running == 0
        assert engine.requests[0].sampling == t.SamplingParams(seed=1)  # the engine is not asked for it as well
        assert stage.seen[0].sampling.stop == ("STOP",)
        assert [e.usage for e in events[:-1]] == [None] * (len(events) - 1)
        assert events[-1].usage == t.Usage(prompt_tokens=3, completion_tokens=5)
    made = t.Completion()
    for e in events:
        made.add(e)
    assert (made.text, made.choices[0].finish_reason) == ("a b c ", "stop")


async def test_a_stage_can_end_generation_where_one_answer_at_the_end_is_asked_for():
    told = dataclasses.replace(event("a b "), prompt_tokens=8)
    engine = FakeEngine([told, event("c STOP d"), "hang"])
    req = request(prompt=t.TextPrompt(text="x"), sampling=t.SamplingParams(stop="STOP"), delivery="final")
    async with opened(engine, stages=[(STOP, Stop())]) as pipeline:
        made = await pipeline.complete(req)
    assert engine.requests[0].delivery == "delta"
    assert made.text == "a b c "
    assert made.usage == t.Usage(prompt_tokens=8, completion_tokens=5)


async def test_hooks_hear_what_a_request_used_that_was_given_up():
    summaries = []

    class Watch:
        def on_error(self, summary):
            summaries.append(summary)

    told = dataclasses.replace(event("a b "), prompt_tokens=8)
    engine = FakeEngine([told, event("c d "), "hang"])
    async with opened(engine, hooks=[({"name": "watch"}, Watch())]) as pipeline:
        events = pipeline.generate(request())
        await anext(events)
        await anext(events)
        await events.aclose()
    assert [type(summary.error) for summary in summaries] == [Cancelled]
    assert summaries[0].usage == t.Usage(prompt_tokens=8, completion_tokens=4)


async def test_a_stage_with_nothing_to_do_costs_nothing():
    stage = Stop()
    async with opened(FakeEngine(), stages=[(STOP, stage)]) as pipeline:
        [prepared] = pipeline.prepare([request()])
        assert prepared.transducers == ()
        assert stage.seen == []


async def test_errors_of_stream_stages_name_the_stage():
    req = request(sampling=t.SamplingParams(stop="x"))
    error = await failure(FakeEngine(), req, error=InternalError, stages=[(STOP, Stop(open_error=KeyError("k")))])
    assert "stage 'stop' raised KeyError" in error.message
    error = await failure(FakeEngine(), req, error=InternalError, stages=[(STOP, Stop(feed_error=KeyError("k")))])
    assert "stream stage test_pipeline._Stopper raised KeyError" in error.message
    await failure(FakeEngine(), req, error=Overloaded, stages=[(STOP, Stop(feed_error=Overloaded("o")))])


async def test_a_supplied_output_format_is_taken_off_the_engine():
    class Json:
        def open(self, req):
            assert req.output_format == t.JsonObject()
            return _Stopper(None)

    engine = FakeEngine()
    plugin = {"name": "json", "shape": "stream", "supplies": frozenset({"output_format.json_object"})}
    await run(engine, request(output_format=t.JsonObject()), stages=[(plugin, Json())])
    assert engine.requests[0].output_format is None


async def test_stages_are_built_once_whichever_thread_comes_first():
    built = []

    def slow(_context, _config):
        built.append(threading.current_thread().name)
        time.sleep(0.05)
        return Upper()

    convert = t.StagePlugin(name="convert", factory=fake.factory(slow), consumes="messages", produces="text")
    engine = FakeEngine()
    entry = fake.FakeEntryPoint(
        "f",
        trunnion_engines=[t.EnginePlugin(name="fake", factory=fake.factory(lambda _m, _c: engine), needs_model=False)],
        trunnion_stages=[convert],
    )
    pipeline = t.Pipeline(t.EngineSpec(engine="fake"), registry=t.Registry(t.PluginPolicy(), entry_points=(entry,)))
    await pipeline.start()
    req = request(prompt=t.MessagesPrompt(messages=()))
    plans = await asyncio.gather(*(asyncio.to_thread(pipeline.plan, req) for _ in range(8)))
    assert len(built) == 1
    assert all(plan is plans[0] for plan in plans)
    await pipeline.stop()


async def test_long_prompts_are_prepared_off_the_loop():
    threads = []

    class Where(Upper):
        def _one(self, item):
            threads.append(threading.current_thread())
            return item

    async with opened(FakeEngine(), listed=LISTED, stages=[(KEEP, Where())]) as pipeline:
        await pipeline.complete(text("short"))
        await pipeline.complete(text("x" * 30_000))
    assert threads[0] is threading.current_thread()
    assert threads[1] is not threading.current_thread()


def test_length_of_a_prompt_never_raises():
    from trunnion.pipeline import _characters

    parts = [{"type": "text", "text": "abc"}, {"type": "image_url"}, 5, {"text": 7}]
    messages = [{"content": "ab"}, {"content": parts}, {"content": None}, {"content": 3}, "no message", {}]
    assert _characters(t.MessagesPrompt(messages=messages)) == 5


REFUSED = (
    "messages: refused: engine 'fake' takes prompts as token_ids or text, and no stage turns messages into "
    "that; send token_ids, or install a stage that converts them (`trunnion plugins list`)"
)


async def test_explain_tells_engine_chain_and_refusals():
    async with opened(FakeEngine(library="fake 1", context_length=9, adapters=("a",)), listed=LISTED,
                      stages=[(KEEP, Upper()), (STOP, Stop())]) as pipeline:  # fmt: skip
        assert pipeline.explain().splitlines() == [
            "engine fake (fake 1), model m, context 9 tokens, useful concurrency 1",
            "adapters: a",
            REFUSED,
            "text -> upper -> [fake: text]",
            "token_ids -> upper -> [fake: token_ids]",
        ]
        one = pipeline.explain(text("x", sampling=t.SamplingParams(stop="x")))
        assert one.splitlines()[2:] == ["text -> upper -> [fake: text] -> stop", "  supplied by stages: sampling.stop"]


async def test_embeddings():
    class Embedder(FakeEngine):
        async def embed(self, prompts, *, dimensions=None, adapter=None):
            if dimensions == 0:
                raise KeyError("oops")
            return [t.Embedding(vector=(1.0,), usage=t.Usage(prompt_tokens=1, completion_tokens=0)) for _ in prompts]

    with pytest.raises(UnsupportedFeature):
        async with opened(FakeEngine()) as pipeline:
            await pipeline.embed([fake.TOKENS])
    engine = Embedder(capabilities=t.Capabilities(protocols=frozenset({"embeds/1"})))
    async with opened(engine) as pipeline:
        assert len(await pipeline.embed([fake.TOKENS] * 2)) == 2
        with pytest.raises(InternalError, match="KeyError"):
            await pipeline.embed([fake.TOKENS], dimensions=0)


class Templates:
    """Turn messages into text; tell whether an answer is to begin."""

    def process(self, items):
        return [self._one(item) for item in items]

    def _one(self, item):
        said = "|".join(message["content"] for message in item.prompt.messages)
        if said == "bad":
            return InvalidArgument("bad row")
        return item.with_(prompt=t.TextPrompt(text=f"{said}>" if item.prompt.add_generation_prompt else said))


async def test_conversations_are_templated_before_they_are_embedded_and_classified():
    class Pools(FakeEngine):
        seen: tuple = ()

        async def embed(self, prompts, *, dimensions=None, adapter=None):
            self.seen = prompts
            return [t.Embedding(vector=(1.0,), usage=t.Usage(prompt_tokens=1, completion_tokens=0)) for _ in prompts]

        async def classify(self, prompts):
            self.seen = prompts
            return [{"good": 1.0} for _ in prompts]

    engine = Pools(capabilities=t.Capabilities(protocols=frozenset({"embeds/1", "classifies/1"})))
    record = {"name": "template", "consumes": "messages", "produces": "text"}
    talk, bad = (t.MessagesPrompt(messages=({"role": "user", "content": said},)) for said in ("hi", "bad"))
    async with opened(engine, stages=[(record, Templates())]) as pipeline:
        await pipeline.embed([fake.TOKENS, talk])
        assert list(engine.seen) == [fake.TOKENS, t.TextPrompt(text="hi")]
        await pipeline.classify([talk])
        assert list(engine.seen) == [t.TextPrompt(text="hi")]
        await pipeline.pool(PoolingRequest(task="embed", prompt=talk))
        assert list(engine.seen) == [t.TextPrompt(text="hi")]
        with pytest.raises(InvalidArgument, match="bad row"):
            await pipeline.embed([fake.TOKENS, bad])


async def test_transcriptions():
    usage = t.Usage(prompt_tokens=3, completion_tokens=1)

    class Hearing(FakeEngine):
        async def transcribe(self, audio, *, mime_type, language=None):
            answers = {"en": t.Transcription(text="yes", usage=usage), "de": f"ja, {mime_type}", "fr": None}
            return answers[language]

    with pytest.raises(UnsupportedFeature, match="transcribes no audio") as refused:
        async with opened(Hearing()) as pipeline:  # it could, and does not declare it
            await pipeline.transcribe(b"", mime_type="audio/wav")
    assert (refused.value.param, refused.value.details["feature"]) == ("model", "transcribes/1")
    engine = Hearing(capabilities=t.Capabilities(protocols=frozenset({"transcribes/1"})))
    async with opened(engine) as pipeline:
        found = await pipeline.transcribe(b"", mime_type="audio/wav", language="en")
        assert (found.text, found.usage) == ("yes", usage)
        bare = await pipeline.transcribe(b"", mime_type="audio/wav", language="de")
        assert (bare.text, bare.usage.total_tokens) == ("ja, audio/wav", 0)
        with pytest.raises(InternalError, match="NoneType"):
            await pipeline.transcribe(b"", mime_type="audio/wav", language="fr")
        with pytest.raises(InternalError, match="KeyError"):
            await pipeline.transcribe(b"", mime_type="audio/wav")


async def test_scores_and_labels():
    usage = t.Usage(prompt_tokens=3, completion_tokens=0)

    class Both(FakeEngine):
        async def score(self, query, texts):
            if query == "short":
                return [1.0]
            return [t.Score(value=0.5, usage=usage), *[float(len(text)) for text in texts[1:]]]

        async def classify(self, prompts):
            if len(prompts) == 1:
                raise KeyError("oops")
            return [t.Classification(probabilities={"a": 0.25, "b": 0.75}, usage=usage), {"a": 1}]

    with pytest.raises(UnsupportedFeature, match="cross-encoder") as refused:
        async with opened(FakeEngine()) as pipeline:
            await pipeline.score("q", ["x"])
    assert (refused.value.param, refused.value.details["feature"]) == ("model", "scores/1")
    with pytest.raises(UnsupportedFeature, match="classification model"):
        async with opened(Both()) as pipeline:  # it could, and does not declare it
            await pipeline.classify([fake.TOKENS])
    engine = Both(capabilities=t.Capabilities(protocols=frozenset({"scores/1", "classifies/1"})))
    async with opened(engine) as pipeline:
        first, second = await pipeline.score("q", ["x", "four"])
        assert (first.value, first.usage, second.value, second.usage.prompt_tokens) == (0.5, usage, 4.0, 0)
        one, other = await pipeline.classify([fake.TOKENS] * 2)
        assert (one.label, one.usage, other.probabilities) == ("b", usage, {"a": 1.0})
        with pytest.raises(InternalError, match="2 inputs with 1 scores"):
            await pipeline.score("short", ["x", "y"])
        with pytest.raises(InternalError, match="KeyError"):
            await pipeline.classify([fake.TOKENS])
