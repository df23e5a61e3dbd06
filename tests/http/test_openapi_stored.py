"""Files and batches answer as the OpenAPI document says: what it allows, and what it forbids."""

import copy

import httpx
import hypothesis
import pytest
from batch_lab import CHAT, jsonl, line
from fuzzing import CHECKS, FUZZED
from http_fakes import FakeModel, RunningServer

from trunnion_http import BatchSettings, HTTPSettings, create_app
from trunnion_http.batches.routing import STORED
from trunnion_http.openapi import document

schemathesis = pytest.importorskip("schemathesis")

from schemathesis.specs.openapi import checks as openapi_checks  # noqa: E402

SCHEMA = schemathesis.openapi.from_dict(document())
OPERATIONS = [one.ok() for one in SCHEMA.get_all_operations() if one.ok().path in STORED]


def name(operation):
    return f"{operation.method} {operation.path}"


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    settings = HTTPSettings(batches=BatchSettings(folder=str(tmp_path_factory.mktemp("openapi"))))
    app = create_app([FakeModel("m", delay=0.1)], settings)
    with RunningServer(app) as server, httpx.Client(base_url=server.url, timeout=20) as client:
        yield client


def upload(web):
    form = {"file": ("a", jsonl([line("a")]))}
    return web.post("/v1/files", data={"purpose": "batch"}, files=form).json()["id"]


def begin(web):
    body = {"input_file_id": upload(web), "endpoint": CHAT, "completion_window": "24h"}
    return web.post("/v1/batches", json=body).json()["id"]


def ask(web, case, wanted):
    response = case.call(base_url=str(web.base_url))
    case.validate_response(response, checks=wanted)
    return response.status_code


@pytest.mark.slow
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("operation", OPERATIONS, ids=name)
def test_whatever_it_allows_is_answered_as_it_says(web, operation, known):
    """As it comes, and with ids that there are."""
    seen = set()

    @hypothesis.given(operation.as_strategy())
    @FUZZED
    def go(case):
        if known and "file_id" in case.path_parameters:
            case.path_parameters["file_id"] = upload(web)
        if known and "batch_id" in case.path_parameters:
            case.path_parameters["batch_id"] = begin(web)
        if known and isinstance(case.body, dict) and "input_file_id" in case.body:
            case.body = copy.deepcopy(case.body) | {"input_file_id": upload(web), "completion_window": "24h"}
        seen.add(ask(web, case, CHECKS))

    go()
    assert not known or 200 in seen


@pytest.mark.slow
@pytest.mark.parametrize("operation", [one for one in OPERATIONS if one.body or one.query], ids=name)
def test_what_it_forbids_is_refused(web, operation):
    strict = [*CHECKS, openapi_checks.negative_data_rejection]

    @hypothesis.given(operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE))
    @FUZZED
    def go(case):
        ask(web, case, strict)

    go()
