"""The OpenAPI document is the server: its routes and no others, and what it allows is answered as it says."""

import contextlib

import httpx
import hypothesis
import pytest
from fuzzing import CHECKS, FUZZED
from http_fakes import RunningServer
from hypothesis import strategies as st

import trunnion
from trunnion.adapter_library import AdapterLibrary
from trunnion.adapter_setting import LoraSettings
from trunnion_http import HTTPSettings, ModelDirectory, PipelineModel, create_app
from trunnion_http.batches.routing import STORED
from trunnion_http.openapi import document
from trunnion_http.openapi.routes import DESCRIBED
from trunnion_http.route_table import ROUTES

schemathesis = pytest.importorskip("schemathesis")

from schemathesis.specs.openapi import checks as openapi_checks  # noqa: E402

SCHEMA = schemathesis.openapi.from_dict(document())
OPERATIONS = [one.ok() for one in SCHEMA.get_all_operations() if one.ok().path not in STORED]


KEY = {"x-api-key": "chief"}
ASLEEP = {"/sleep", "/wake_up"}
"""What the simulated engine cannot do."""
HELLO = [{"role": "user", "content": "Hello"}]
NEEDED = {
    "/v1/chat/completions": ["messages"],
    "/v1/completions": ["prompt"],
    "/v1/embeddings": ["input"],
    "/v1/audio/transcriptions": ["file"],
    "/v1/messages": ["messages", "max_tokens"],
    "/v1/messages/count_tokens": ["messages"],
    "/v1/responses": ["input"],
    **dict.fromkeys(("/v1/score", "/score"), ("text_1", "text_2")),
    **dict.fromkeys(("/v1/rerank", "/v2/rerank", "/rerank"), ("query", "documents")),
    **dict.fromkeys(("/v1/classify", "/classify"), ("input",)),
    "/v1/load_lora_adapter": ["lora_name", "lora_path"],
    "/v1/unload_lora_adapter": ["lora_name"],
    "/sleep": [],
    "/wake_up": [],
    "/reset_prefix_cache": [],
    "/tokenize": ["prompt"],
    "/detokenize": ["tokens"],
}
SENSIBLE = {
    "messages": HELLO, "input": "Hello", "prompt": "Hello", "max_tokens": 8, "tokens": [5, 6],
    "lora_name": "a", "lora_path": "a", "load_inplace": True,
    "file": b"RIFF\x00\x00\x00\x00WAVE" + b"\0" * 200,
    "text_1": "Hello", "text_2": ["Hi", "No"], "query": "Hello", "documents": ["Hi", {"text": "No"}],
}  # fmt: skip


@pytest.fixture(scope="module")
def sim(tmp_path_factory):
    """Serve the simulated engine, with words and with a tokenizer of its own; answers are short."""
    transformers = pytest.importorskip("transformers")
    from trunnion_demo import model_path

    transformers.AutoTokenizer.from_pretrained(model_path())  # its import takes longer than a server's start may
    directory = ModelDirectory()

    @contextlib.asynccontextmanager
    async def lifespan():
        short = {"max_model_len": 400, "default_max_tokens": 4, "eos_after": 8}
        words = trunnion.engine_spec("sim", "sim", short)
        ids = trunnion.engine_spec("sim", "sim", {**short, "tokenizer": str(model_path())})
        async with trunnion.open_pipeline(words) as one, trunnion.open_pipeline(ids) as two:
            libraries = [AdapterLibrary(pipeline, lora) for pipeline in (one, two)]
            for library in libraries:
                await library.start()
            directory.add(PipelineModel("words", one, libraries[0]))
            directory.add(PipelineModel("ids", two, libraries[1]))
            yield
            for library in libraries:
                await library.close()

    folder = tmp_path_factory.mktemp("adapters")
    (folder / "a").mkdir()
    (folder / "a" / "adapter_config.json").write_text("{}")
    lora = LoraSettings(folders=(str(folder),))
    keys = folder / "keys"
    keys.write_text(KEY["x-api-key"])
    app = create_app(directory, HTTPSettings(max_choices=64, admin_keys_file=str(keys)), lifespan=lifespan)
    with RunningServer(app) as server, httpx.Client(base_url=server.url, timeout=20) as client:
        yield client


def test_every_route_is_described_and_none_else():
    served = {(path, method.lower()) for path, (method, _) in ROUTES.items()} | {("/v1/models/{model}", "get")}
    served |= {(path, method.lower()) for path, methods in STORED.items() for method in methods}
    assert {(path, method) for path, methods in document()["paths"].items() for method in methods} == served


def test_it_is_valid_and_served_without_a_key(sim):
    SCHEMA.validate()
    answer = sim.get("/openapi.json")
    assert answer.json() == document()
    assert answer.json()["openapi"] == "3.1.0"


def test_refused_fields_are_told():
    fields = document()["components"]["schemas"]["ResponsesBody"]["properties"]
    assert fields["previous_response_id"]["type"] == "null"
    assert "send the whole conversation" in fields["previous_response_id"]["description"]


def filled(body, operation, sensible, kept):
    """Return a body with what must be there, and with all of the rest, or with one field of it."""
    if sensible == "none":
        return body
    if sensible == "all but one":
        names = sorted(body)
        body = {name: body[name] for name in names[kept % len(names) :][:1]} if names else {}
    needed = NEEDED.get(operation.path, ())
    return body | {key: SENSIBLE[key] for key in SENSIBLE if key in body or key in needed}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("operation", [o for o in OPERATIONS if DESCRIBED[o.path].streams], ids=lambda o: o.path)
def test_both_ways_to_answer_are_told(sim, operation, stream):
    body = {key: SENSIBLE[key] for key in NEEDED[operation.path]} | {"model": "words", "stream": stream}
    case = operation.Case(body=body, media_type="application/json")
    response = case.call(base_url=str(sim.base_url), headers=KEY)
    case.validate_response(response, checks=CHECKS)
    assert response.status_code == 200
    assert response.headers["content-type"][0].startswith("text/event-stream") is stream


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.path)
def test_whatever_it_allows_is_answered_as_it_says(sim, operation):
    """As it comes, and with sensible values where anything else fails early."""
    seen = set()

    sensible = st.sampled_from(["none", "all", "all but one"])

    @hypothesis.given(operation.as_strategy(), st.sampled_from(["words", "ids"]), sensible, st.integers(0, 99))
    @FUZZED
    def ask(case, name, sensible, kept):
        if isinstance(case.body, dict):
            case.body = filled(case.body, operation, sensible, kept) | {"model": name}
        if case.path_parameters:
            case.path_parameters["model"] = name
        response = case.call(base_url=str(sim.base_url), headers=KEY)
        case.validate_response(response, checks=CHECKS)
        seen.add(response.status_code)

    ask()
    assert 200 in seen or operation.path in ASLEEP


@pytest.mark.slow
@pytest.mark.parametrize("operation", [o for o in OPERATIONS if o.body], ids=lambda operation: operation.path)
def test_what_it_forbids_is_refused(sim, operation):
    @hypothesis.given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE))
    @FUZZED
    def ask(case):
        response = case.call(base_url=str(sim.base_url), headers=KEY)
        case.validate_response(response, checks=[*CHECKS, openapi_checks.negative_data_rejection])

    ask()
