"""Counting and tokenizing over a real pipeline, by the demo model's own tokenizer and chat template."""

import contextlib

import anthropic
import httpx
import pytest
from http_fakes import RunningServer

import trunnion
from trunnion_http import ModelDirectory, PipelineModel, create_app

HELLO = [{"role": "user", "content": "What is the capital of France?"}]
TOOL = {"name": "weather", "description": "Tells the weather.", "input_schema": {"type": "object", "properties": {}}}
PNG = "iVBORw0KGgo="


@pytest.fixture(scope="module")
def served():
    """Serve engines that take token ids, messages with a tokenizer beside, and messages alone."""
    transformers = pytest.importorskip("transformers")
    from trunnion_demo import model_path

    transformers.AutoTokenizer.from_pretrained(model_path())  # its import takes longer than a server's start may
    directory = ModelDirectory()

    @contextlib.asynccontextmanager
    async def lifespan():
        ids = trunnion.engine_spec("sim", "sim", {"tokenizer": str(model_path()), "max_model_len": 512})
        words = trunnion.engine_spec("sim", "sim")
        async with trunnion.open_pipeline(ids) as one, trunnion.open_pipeline(words) as two:
            directory.add(PipelineModel("ids", one))
            directory.add(PipelineModel("words", two))
            yield

    with RunningServer(create_app(directory, lifespan=lifespan)) as server:
        yield server


@pytest.fixture(scope="module")
def post(served):
    with httpx.Client(base_url=served.url, timeout=60) as client:

        def send(path, model="ids", **body):
            return client.post(path, json={"model": model, **body})

        yield send


@pytest.fixture(scope="module")
def claude(served):
    with anthropic.Anthropic(base_url=served.url, api_key="none", max_retries=0, timeout=60) as client:
        yield client


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"system": "Be kind."},
        {"tools": [TOOL]},
        {"tools": [TOOL], "tool_choice": {"type": "none"}},
        {"messages": [*HELLO, {"role": "assistant", "content": "It is"}]},
    ],
)
def test_counts_are_what_the_engine_is_sent(claude, body):
    body = {"model": "ids", "messages": HELLO, **body}
    counted = claude.messages.count_tokens(**body)
    assert not counted.model_extra
    usage = claude.messages.create(max_tokens=4, **body).usage
    assert counted.input_tokens == usage.input_tokens + usage.cache_read_input_tokens


def test_tools_and_system_count(claude):
    def count(**body):
        return claude.messages.count_tokens(model="ids", messages=HELLO, **body).input_tokens

    assert count() < count(system="Be kind.")
    assert count() < count(tools=[TOOL])
    assert count() == count(tools=[TOOL], tool_choice={"type": "none"})


def test_images_are_not_counted(claude):
    source = {"type": "base64", "media_type": "image/png", "data": PNG}
    messages = [{"role": "user", "content": [{"type": "image", "source": source}]}]
    with pytest.raises(anthropic.BadRequestError, match="media"):
        claude.messages.count_tokens(model="ids", messages=messages)


def test_tokens_and_back(post):
    answer = post("/tokenize", prompt="Hello there, 你好!").json()
    assert set(answer) == {"count", "max_model_len", "tokens", "token_strs"}
    assert answer["count"] == len(answer["tokens"]) > 3
    assert answer["max_model_len"] == 512
    assert post("/detokenize", tokens=answer["tokens"]).json() == {"prompt": "Hello there, 你好!"}
    assert post("/detokenize", tokens=[]).json() == {"prompt": ""}


def test_messages_pass_the_chat_template(post):
    answer = post("/tokenize", messages=HELLO).json()
    text = post("/detokenize", tokens=answer["tokens"]).json()["prompt"]
    assert "capital of France" in text
    usage = post("/v1/chat/completions", messages=HELLO, max_tokens=2).json()["usage"]
    assert usage["prompt_tokens"] == answer["count"]
    assert post("/tokenize", messages=HELLO, add_generation_prompt=False).json()["count"] < answer["count"]
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    assert post("/tokenize", messages=HELLO, tools=[tool]).json()["count"] > answer["count"]


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize"])
def test_an_engine_without_a_tokenizer_says_so(post, path):
    body = {"prompt": "x"} if path == "/tokenize" else {"tokens": [1]}
    response = post(path, model="words", **body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["code"], error["param"]) == ("unsupported_feature", "model")
    assert "'sim'" in error["message"]


def test_a_handle_that_cannot_tokenize_says_so(web, model):
    error = web.post("/tokenize", json={"model": model.name, "prompt": "x"}).json()["error"]
    assert (error["code"], error["param"]) == ("unsupported_feature", "model")


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "x", "messages": HELLO}, "prompt"),
        ("/tokenize", {"prompt": "x", "tools": [TOOL]}, "tools"),
        ("/tokenize", {"prompt": "x", "chat_template": "x"}, "chat_template"),
        ("/tokenize", {"prompt": "x", "return_token_strs": True}, "return_token_strs"),
        ("/tokenize", {"messages": HELLO, "add_special_tokens": True}, "add_special_tokens"),
        ("/tokenize", {"messages": HELLO, "tools": [TOOL]}, "tools[0]"),
        ("/tokenize", {"messages": []}, "messages"),
        ("/tokenize", {"messages": HELLO, "chat_template": "{{ 1 }}"}, "chat_template"),
        ("/tokenize", {"promt": "x"}, "promt"),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens[0]"),
        ("/detokenize", {"tokens": ["x"]}, "tokens[0]"),
        ("/detokenize", {"tokens": [5, 2_000_000_000, 6]}, "tokens"),
        ("/detokenize", {"tokens": [1], "x": 1}, "x"),
    ],
)
def test_what_is_refused_is_named(post, path, body, param):
    response = post(path, **body)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param


def test_special_tokens_are_the_tokenizers_to_add(post):
    plain = post("/tokenize", prompt="x", add_special_tokens=False).json()["tokens"]
    assert post("/tokenize", prompt="x").json()["tokens"][-len(plain) :] == plain
