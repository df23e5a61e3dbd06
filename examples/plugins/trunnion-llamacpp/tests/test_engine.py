"""Hold what is this engine's own: adapters in turns, the cache, settings, errors, stopping."""

from __future__ import annotations

import asyncio
import gc
import json
import shutil
import threading
from contextlib import aclosing
from pathlib import Path

import psutil
import pytest
import trunnion
from trunnion import (
    AdapterRef,
    GenerateRequest,
    MessagesPrompt,
    SamplingParams,
    TextPrompt,
    TokensPrompt,
    as_prompt,
    open_pipeline,
)
from trunnion.errors import (
    AdapterNotFound,
    Cancelled,
    ConfigError,
    ContextOverflow,
    EngineDead,
    InvalidArgument,
    ModelNotFound,
    TrunnionError,
    UnsupportedFeature,
)
from trunnion_demo import adapter_paths, model_path

from trunnion_llamacpp.config import LlamaCppConfig
from trunnion_llamacpp.engine import LlamaCppEngine

STORY = "Tell me a story."


def request(text: str = STORY, **fields) -> GenerateRequest:
    sampling = {"temperature": 0.0, "max_tokens": 24}
    sampling |= {name: fields.pop(name) for name in SamplingParams.__dataclass_fields__ if name in fields}
    return GenerateRequest(prompt=as_prompt(text), sampling=SamplingParams(**sampling), **fields)


def spec(model: str, **config) -> trunnion.EngineSpec:
    return trunnion.engine_spec("llamacpp", model, config)


async def drained(engine: LlamaCppEngine, asked: GenerateRequest) -> list:
    async with aclosing(engine.generate(asked)) as events:
        return [event async for event in events]


@pytest.fixture
async def engine(models):
    engine = LlamaCppEngine(models.alone, LlamaCppConfig(adapters=models.adapters, adapter_turn_steps=2))
    await engine.start()
    yield engine
    await engine.stop()


async def test_adapters_take_turns_and_none_starves(engine: LlamaCppEngine) -> None:
    """Requests of three adapters that came one after the other end about together."""
    order: list[str | None] = []

    async def run(adapter: str | None) -> None:
        async with aclosing(engine.generate(request(adapter=adapter, ignore_eos=True, max_tokens=60))) as events:
            async for _ in events:
                order.append(adapter)

    await asyncio.gather(*(run(adapter) for adapter in (None, "pirate", "capitals")))
    early = order[: len(order) // 2]
    assert {None, "pirate", "capitals"} == set(early)
    assert max(early.count(adapter) for adapter in set(early)) < 0.6 * len(early)


async def test_an_adapter_in_use_is_unloaded_once_its_requests_ended(engine: LlamaCppEngine) -> None:
    before = (await drained(engine, request(adapter="pirate", delivery="final")))[0].choices[0].text
    running = asyncio.ensure_future(drained(engine, request(adapter="pirate", delivery="final")))
    await asyncio.sleep(0)
    await engine.unload_adapter("pirate")
    assert running.done() or (await running)
    assert (await running)[0].choices[0].text == before
    with pytest.raises(AdapterNotFound):
        await drained(engine, request(adapter="pirate"))


async def test_another_path_replaces_an_adapter(engine: LlamaCppEngine, models) -> None:
    capitals = await drained(engine, request(adapter="capitals", delivery="final"))
    await engine.load_adapter(AdapterRef(name="pirate", path=models.adapters["capitals"]))
    replaced = await drained(engine, request(adapter="pirate", delivery="final"))
    assert replaced[0].choices[0].text == capitals[0].choices[0].text


async def test_a_new_adapter_never_finds_the_cache_of_an_old_one(engine: LlamaCppEngine, models) -> None:
    await engine.load_adapter(AdapterRef(name="x", path=models.adapters["pirate"]))
    first = await drained(engine, request(adapter="x", delivery="final"))
    await engine.unload_adapter("x")
    await engine.load_adapter(AdapterRef(name="x", path=models.adapters["capitals"]))
    second = await drained(engine, request(adapter="x", delivery="final"))
    assert second[0].usage.cached_tokens == 0
    assert second[0].choices[0].text != first[0].choices[0].text


async def test_adapters_come_as_files_folders_and_uris(engine: LlamaCppEngine, models) -> None:
    texts = set()
    for path in (models.adapters["pirate"], str(adapter_paths()["pirate"]), f"file://{adapter_paths()['pirate']}"):
        await engine.load_adapter(AdapterRef(name="one", path=path))
        texts.add((await drained(engine, request(adapter="one", delivery="final")))[0].choices[0].text)
    assert len(texts) == 1


@pytest.mark.parametrize("what", ["nothing", "empty", "broken", "foreign", "half"])
async def test_what_is_no_adapter_is_refused(engine: LlamaCppEngine, models, tmp_path: Path, what: str) -> None:
    path = tmp_path / "adapter"
    if what == "empty":
        path.mkdir()
    elif what == "broken":
        path.write_bytes(b"GGUF, but not really")
    elif what == "foreign":
        path = Path(models.alone)  # a model
    elif what == "half":
        shutil.copytree(adapter_paths()["pirate"], path)
        (path / "adapter_model.safetensors").write_bytes(b"\x10")
    with pytest.raises((AdapterNotFound, InvalidArgument)) as refused:
        await engine.load_adapter(AdapterRef(name="one", path=str(path)))
    assert str(path) in str(refused.value)
    assert "one" not in [adapter.name for adapter in await engine.list_adapters()]
    assert await drained(engine, request(max_tokens=2))


async def test_an_adapter_of_another_shape_is_refused(engine: LlamaCppEngine, tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    other = LlamaForCausalLM(
        LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=4)
    )
    get_peft_model(other, LoraConfig(target_modules=["q_proj"], r=2)).save_pretrained(tmp_path)
    with pytest.raises(InvalidArgument, match="does not fit"):
        await engine.load_adapter(AdapterRef(name="one", path=str(tmp_path)))


async def test_prefixes_are_found_and_may_be_forgotten(engine: LlamaCppEngine) -> None:
    async def cached(**fields) -> int:
        return (await drained(engine, request("x " * 200, max_tokens=1, **fields)))[-1].usage.cached_tokens

    assert await cached() == 0
    assert await cached() > 150
    assert await cached(adapter="pirate") == 0
    assert await cached(cache_salt="mine") == 0
    assert await engine.reset_prefix_cache()
    assert await cached() == 0


async def test_nothing_is_forgotten_while_requests_run(engine: LlamaCppEngine) -> None:
    async with aclosing(engine.generate(request(max_tokens=200, ignore_eos=True))) as events:
        await anext(events)
        assert not await engine.reset_prefix_cache()


async def test_choices_share_their_prompt_and_differ(engine: LlamaCppEngine) -> None:
    asked = request(n=4, temperature=1.5, seed=3, max_tokens=12, delivery="final")
    one, two = [(await drained(engine, asked))[0] for _ in range(2)]
    texts = [choice.text for choice in one.choices]
    assert len(set(texts)) > 1
    assert [choice.text for choice in two.choices] == texts
    assert one.usage.completion_tokens == sum(len(choice.token_ids) for choice in one.choices)


async def test_a_cache_too_small_for_all_serves_all(models) -> None:
    """Requests that together exceed the cache are interrupted, and end as they would alone."""
    async with open_pipeline(spec(models.alone, n_ctx=512, n_seq_max=8, max_model_len=400)) as pipeline:
        asked = [request(f"{number}: {STORY}", max_tokens=120, ignore_eos=True) for number in range(8)]
        together = await asyncio.gather(*map(pipeline.complete, asked))
        alone = [await pipeline.complete(one) for one in asked]
    assert [one.text for one in together] == [one.text for one in alone]
    assert {len(one.choices[0].token_ids) for one in together} == {120}


async def test_text_comes_in_whole_characters(engine: LlamaCppEngine) -> None:
    from trunnion import Grammar

    asked = request(output_format=Grammar(grammar='root ::= "日本語 🦙 äöü"'), max_tokens=60)
    pieces = [choice.text for event in await drained(engine, asked) for choice in event.choices]
    assert "".join(pieces) == "日本語 🦙 äöü"
    assert "\ufffd" not in "".join(pieces)
    assert len([piece for piece in pieces if piece]) > 3


async def test_text_is_left_out_where_nobody_wants_it(engine: LlamaCppEngine) -> None:
    event = (await drained(engine, request(detokenize=False, delivery="final")))[0]
    assert event.choices[0].text == ""
    assert event.choices[0].token_ids


async def test_a_stop_token_is_told_and_is_no_text(engine: LlamaCppEngine) -> None:
    whole = (await drained(engine, request(delivery="final")))[0].choices[0]
    stop = whole.token_ids[5]
    place = list(whole.token_ids).index(stop)
    cut = (await drained(engine, request(delivery="final", stop_token_ids=(stop,))))[0].choices[0]
    assert (cut.finish_reason, cut.stop_reason) == ("stop", stop)
    assert list(cut.token_ids) == list(whole.token_ids[: place + 1])
    assert whole.text.startswith(cut.text)
    assert len(cut.text) < len(whole.text)


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"logit_bias": {99999: 1.0}}, "logit_bias"), ({"stop_token_ids": (99999,)}, "stop_token_ids")],
)
async def test_ids_that_the_model_lacks_are_refused(engine: LlamaCppEngine, fields, param: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await drained(engine, request(**fields))
    assert refused.value.param == param


async def test_messages_that_the_template_refuses(engine: LlamaCppEngine) -> None:
    for messages in (
        [{"role": "wizard", "content": "x"}],
        [{"role": "user", "content": [{"type": "image_url"}]}],
        ["hello"],
    ):
        with pytest.raises(InvalidArgument):
            await drained(engine, GenerateRequest(prompt=MessagesPrompt(messages=messages)))
    own = MessagesPrompt(messages=({"role": "user", "content": "x"},), chat_template="{{ messages }}")
    with pytest.raises(UnsupportedFeature):
        await drained(engine, GenerateRequest(prompt=own))
    with pytest.raises(InvalidArgument):
        await drained(engine, GenerateRequest(prompt=TextPrompt(text="\ud800")))
    with pytest.raises(InvalidArgument):
        await drained(engine, GenerateRequest(prompt=TextPrompt(text="")))


async def test_rendering_is_that_of_the_stages(models) -> None:
    """The engine's own template and tokenizer give the tokens that Trunnion's stages give."""
    conversations = [
        ({"role": "user", "content": "Hello!"},),
        ({"role": "system", "content": " Be brief. "}, {"role": "user", "content": [{"type": "text", "text": "Hi"}]}),
        ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}),
    ]
    cases = [({}, conversation) for conversation in conversations]
    cases += [({"add_generation_prompt": False}, conversations[0])]
    ending = (*conversations[0], {"role": "assistant", "content": "The sea is "})
    cases += [({"continue_final_message": True, "add_generation_prompt": False}, ending)]
    async with open_pipeline(spec(models.alone)) as alone, open_pipeline(spec(models.beside)) as beside:
        for options, conversation in cases:
            prompt = MessagesPrompt(messages=conversation, **options)
            asked = GenerateRequest(prompt=prompt, sampling=SamplingParams(max_tokens=1, temperature=0.0))
            prepared = beside.prepare([asked])[0].request.prompt
            assert await alone.engine._loaded.reader.read(prompt) == list(prepared.token_ids)


async def test_a_template_of_the_users_own(models, tmp_path: Path) -> None:
    template = "{{ '<|im_start|>user\\nTell me a joke.<|im_end|>\\n<|im_start|>assistant\\n' }}"
    file = tmp_path / "template.jinja"
    file.write_text(template)
    for model in (models.alone, models.beside):
        for setting in (template, str(file)):
            async with open_pipeline(spec(model, chat_template=setting)) as pipeline:
                assert (await pipeline.complete(request(max_tokens=60))).text.startswith("Why did the computer")
    with pytest.raises(ConfigError):
        await LlamaCppEngine(models.alone, LlamaCppConfig(chat_template="{% broken")).start()
    with pytest.raises(ConfigError):
        await LlamaCppEngine(models.alone, LlamaCppConfig(chat_template="no/such/file")).start()


async def test_a_file_alone_refuses_tools_and_says_what_would_help(models) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    async with open_pipeline(spec(models.alone)) as pipeline:
        with pytest.raises(UnsupportedFeature, match="tokenizer"):
            await pipeline.complete(request(tools=(tool,)))


@pytest.mark.parametrize(
    ("tokenizer", "used"), [(None, True), ("gguf", False), (str(model_path()), True)], ids=["beside", "gguf", "named"]
)
async def test_whose_tokenizer_is_used(models, tokenizer, used: bool) -> None:
    async with open_pipeline(spec(models.beside, tokenizer=tokenizer)) as pipeline:
        assert (pipeline.info.tokenizer is not None) == used
        assert pipeline.info.capabilities.prompts[0] == ("token_ids" if used else "messages")
        assert (await pipeline.complete(request("Hello!"))).text == "Hello! How can I help you?"


async def test_a_tokenizer_of_another_model(models, tmp_path: Path) -> None:
    """One that is named is refused; one that merely lies there is not used."""
    shutil.copy(models.beside, tmp_path / "demo.gguf")
    data = json.loads((model_path() / "tokenizer.json").read_text())
    data["model"]["vocab"]["zzzz"] = data["model"]["vocab"].pop("!")
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    async with open_pipeline(spec(str(tmp_path))) as pipeline:
        assert pipeline.info.tokenizer is None
    with pytest.raises(ConfigError) as refused:
        await LlamaCppEngine(models.alone, LlamaCppConfig(tokenizer=str(tmp_path))).start()
    assert refused.value.param == "tokenizer"


@pytest.mark.parametrize("what", ["nothing", "no GGUF", "cut off", "empty folder", "two files"])
async def test_models_that_are_none(models, tmp_path: Path, what: str) -> None:
    path = tmp_path / "model.gguf"
    kind: type[TrunnionError] = ConfigError
    if what == "nothing":
        kind = ModelNotFound
    elif what == "no GGUF":
        path.write_text("hello")
    elif what == "cut off":
        path.write_bytes(Path(models.alone).read_bytes()[:100_000])
    elif what == "empty folder":
        path, kind = tmp_path, ModelNotFound
    else:
        path = tmp_path
        for name in ("a.gguf", "b.gguf"):
            shutil.copy(models.alone, tmp_path / name)
    engine = LlamaCppEngine(str(path), LlamaCppConfig())
    with pytest.raises(kind) as refused:
        await engine.start()
    assert refused.value.param == "model"
    await engine.stop()


async def test_a_folder_with_one_file_is_a_model(models, tmp_path: Path) -> None:
    for name in ("demo-00001-of-00002.gguf", "demo-00002-of-00002.gguf", "mmproj-demo.gguf"):
        shutil.copy(models.alone, tmp_path / name)
    engine = LlamaCppEngine(str(tmp_path), LlamaCppConfig())
    assert (await engine.start()).details["file"].endswith("00001-of-00002.gguf")
    await engine.stop()


async def test_sizes_hold(models) -> None:
    config = LlamaCppConfig(n_ctx=1000, n_seq_max=3, n_batch=32, n_threads=2, max_model_len=300)
    engine = LlamaCppEngine(models.alone, config)
    info = await engine.start()
    assert (info.context_length, info.concurrency) == (300, 3)
    assert (info.details["n_ctx"], info.details["n_batch"], info.details["n_threads"]) == (1024, 32, 2)
    assert engine.load().capacity == 3

    def long(tokens: int, **sampling) -> GenerateRequest:
        return GenerateRequest(prompt=TokensPrompt(token_ids=[50] * tokens), sampling=SamplingParams(**sampling))

    usage = (await drained(engine, long(250, max_tokens=3, ignore_eos=True)))[-1].usage  # longer than a batch
    assert (usage.prompt_tokens, usage.completion_tokens) == (250, 3)
    for tokens, sampling in ((300, {}), (295, {"max_tokens": 6})):
        with pytest.raises(ContextOverflow):
            await drained(engine, long(tokens, **sampling))
    await engine.stop()


async def test_no_limit_is_the_context(models) -> None:
    async with open_pipeline(spec(models.alone, max_model_len=100)) as pipeline:
        answer = await pipeline.complete(request(max_tokens=None, ignore_eos=True))
    assert answer.usage.total_tokens == 100
    assert answer.choices[0].finish_reason == "length"


async def test_threads_follow_the_environment(models, monkeypatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    engine = LlamaCppEngine(models.alone, LlamaCppConfig())
    assert (await engine.start()).details["n_threads"] == 1
    await engine.stop()


async def test_further_arguments_of_the_context_have_an_effect(models) -> None:
    async def text(**kwargs) -> str:
        async with open_pipeline(spec(models.alone, engine_kwargs=kwargs)) as pipeline:
            return (await pipeline.complete(request())).text

    assert await text(rope_freq_scale=0.1) != await text()


async def test_a_cache_of_prefixes_may_be_off(models) -> None:
    async with open_pipeline(spec(models.alone, prefix_cache=False)) as pipeline:
        usages = [(await pipeline.complete(request("x " * 100, max_tokens=1))).usage for _ in range(2)]
    assert [usage.cached_tokens for usage in usages] == [0, 0]


async def test_the_engines_seed_repeats_draws(models) -> None:
    async def texts(seed: int | None) -> list[str]:
        async with open_pipeline(spec(models.alone, seed=seed)) as pipeline:
            return [(await pipeline.complete(request(temperature=2.0))).text for _ in range(2)]

    assert await texts(1) == await texts(1) != await texts(2)


@pytest.mark.parametrize(
    "settings",
    [
        {"n_ctx": 512, "max_model_len": 600},
        {"engine_kwargs": {"n_ctx": 512}},
        {"engine_kwargs": {"no_such": 1}},
        {"cache_type": "q3"},
        {"n_seq_max": 257},
    ],
)
def test_wrong_settings_are_refused_before_anything_starts(models, settings) -> None:
    with pytest.raises(ConfigError):
        spec(models.alone, **settings)


async def test_settings_that_only_the_start_can_refuse(models) -> None:
    for settings, param in (
        ({"n_gpu_layers": -1}, "n_gpu_layers"),
        ({"max_model_len": 4096}, "max_model_len"),
        ({"adapters": {"x": "no/where"}}, "adapters.x"),
        ({"n_ctx": 2**30}, "n_ctx"),
    ):
        engine = LlamaCppEngine(models.alone, LlamaCppConfig(**settings))
        with pytest.raises(ConfigError) as refused:
            await engine.start()
        assert refused.value.param == param
        await engine.stop()


async def test_stopping_while_it_starts(models) -> None:
    engine = LlamaCppEngine(models.alone, LlamaCppConfig())
    starting = asyncio.ensure_future(engine.start())
    await asyncio.sleep(0)
    await engine.stop()
    with pytest.raises((Cancelled, ConfigError)):
        await starting
    with pytest.raises(EngineDead):
        await drained(engine, request())


async def test_a_start_that_is_cancelled_leaves_no_thread(models) -> None:
    engine = LlamaCppEngine(models.alone, LlamaCppConfig())
    starting = asyncio.ensure_future(engine.start())
    await asyncio.sleep(0.001)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await engine.stop()
    await asyncio.sleep(0.2)
    assert not [thread for thread in threading.enumerate() if thread.name == "trunnion-llamacpp"]


async def test_a_thread_that_dies_is_told_to_everybody(engine: LlamaCppEngine, monkeypatch) -> None:
    running = asyncio.ensure_future(drained(engine, request(max_tokens=400, ignore_eos=True)))
    await asyncio.sleep(0.05)
    monkeypatch.setattr(engine._loaded.context, "decode", lambda _pieces: -3)
    with pytest.raises(EngineDead, match="-3"):
        await running
    with pytest.raises(EngineDead):
        await engine.check_health()
    with pytest.raises(EngineDead):
        await drained(engine, request())
    assert engine.load().running == 0


async def test_draining_lets_requests_end(models) -> None:
    engine = LlamaCppEngine(models.alone, LlamaCppConfig())
    await engine.start()
    running = asyncio.ensure_future(drained(engine, request(max_tokens=50, ignore_eos=True)))
    await asyncio.sleep(0.02)
    await engine.stop(drain=60)
    assert (await running)[-1].usage.completion_tokens == 50


async def test_starting_and_stopping_leaves_nothing(models) -> None:
    async def round_() -> None:
        engine = LlamaCppEngine(models.alone, LlamaCppConfig(adapters=models.adapters, n_ctx=4096))
        await engine.start()
        running = [
            asyncio.ensure_future(drained(engine, request(max_tokens=300, ignore_eos=True, repetition_penalty=1.1)))
            for _ in range(4)
        ]
        await asyncio.sleep(0.02)
        await engine.stop()
        assert all(isinstance(end, Cancelled) for end in await asyncio.gather(*running, return_exceptions=True))

    for _ in range(5):
        await round_()
    gc.collect()
    process = psutil.Process()
    before = (process.memory_info().rss, process.num_fds(), threading.active_count())
    for _ in range(20):
        await round_()
    gc.collect()
    after = (process.memory_info().rss, process.num_fds(), threading.active_count())
    assert after[0] - before[0] < 40 * 2**20  # the model is 12 MiB, its cache 8: one that stays each time is 400
    assert after[1] <= before[1] + 2
    assert after[2] <= before[2] + 1
