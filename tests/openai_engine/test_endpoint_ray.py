"""Batches over endpoints on Ray: any HTTP endpoint, our own Serve application, a deployment by its handle."""

import json
from pathlib import Path

import pytest
from pydantic import BaseModel

from trunnion.errors import ConfigError
from trunnion_ray.data import (
    HttpRequestProcessorConfig,
    ProcessorConfig,
    ServeDeploymentProcessorConfig,
    build_processor,
    find_error,
)

pytestmark = pytest.mark.ray
EXAMPLE = Path(__file__).parents[2] / "examples" / "endpoint.py"


class Asked(BaseModel):
    request_id: str
    number: int


class Doubler:
    async def double(self, request):
        if request.number == 3:
            raise ValueError("three is too much")
        yield {"doubled": request.number * 2, "class": type(request).__name__}

    async def plain(self, request):
        return {"tripled": request["number"] * 3}


@pytest.fixture(scope="module")
def application(serve_session):
    """Serve the simulated engine, as a model of Serve; yield the base URL."""
    from ray import serve

    from trunnion_ray.serve import build_openai_app

    model = {
        "name": "m", "engine": "sim", "config": {"output": "echo"}, "ray_actor_options": {"num_cpus": 0.1}
    }  # fmt: skip
    serve.run(build_openai_app({"models": [model]}), name="llm", route_prefix="/llm")
    serve.run(
        serve.deployment(Doubler).options(ray_actor_options={"num_cpus": 0.1}).bind(), name="plain", route_prefix=None
    )
    yield f"{serve_session}/llm/v1"
    serve.delete("llm")
    serve.delete("plain")


def test_a_batch_over_our_own_application(application, ray_session):
    config = ProcessorConfig(
        engine="openai", model="m", config={"base_url": application}, batch_size=16, sampling={"max_tokens": 3}
    )
    processor = build_processor(
        config, preprocess=lambda row: {"messages": [{"role": "user", "content": f"{row['id']} a b c"}]}
    )
    rows = sorted(processor(ray_session.data.range(50)).take_all(), key=lambda row: row["id"])
    assert [row["generated_text"].split()[:2] for row in rows] == [["user:", str(i)] for i in range(50)]
    assert {row["error"] for row in rows} == {None}
    assert {row["num_generated_tokens"] for row in rows} == {3}


def test_rows_that_are_http_requests(application, ray_session):
    config = HttpRequestProcessorConfig(url=f"{application}/chat/completions", batch_size=8)

    def payload(row):
        content = {"role": "user", "content": f"{row['id']} a b c"}
        return {"payload": {"model": "m" if row["id"] != 7 else "nobody", "messages": [content], "max_tokens": 3}}

    processor = build_processor(
        config,
        preprocess=payload,
        postprocess=lambda row: {
            "id": row["id"], "text": row["http_response"]["choices"][0]["message"]["content"]
        },
    )  # fmt: skip
    rows = sorted(processor(ray_session.data.range(40)).take_all(), key=lambda row: row["id"])
    assert [row["id"] for row in rows] == list(range(40))
    failed = [row["id"] for row in rows if row["__inference_error__"]]
    assert failed == [7]
    assert all(row["text"].startswith(f"user: {row['id']}") for row in rows if row["id"] != 7)
    assert "ModelNotFound" in rows[7]["__inference_error__"]


def serve_config(**fields):
    common = {"deployment_name": "Doubler", "app_name": "plain", "dtype_mapping": {"Asked": Asked}, "batch_size": 4}
    return ServeDeploymentProcessorConfig(**{**common, **fields})


def test_rows_for_a_deployment(application, ray_session):
    processor = build_processor(
        serve_config(should_continue_on_error=True),
        preprocess=lambda row: {
            "method": "double", "dtype": "Asked", "request_kwargs": {"number": row["id"]}
        },
        postprocess=lambda row: {"id": row["id"], "doubled": row["doubled"], "took": row["time_taken"]},
    )  # fmt: skip
    rows = sorted(processor(ray_session.data.range(10)).take_all(), key=lambda row: row["id"])
    assert [row.get("doubled") for row in rows] == [0, 2, 4, None, 8, 10, 12, 14, 16, 18]
    assert "three is too much" in rows[3]["__inference_error__"]
    assert all(row["took"] >= 0 for row in rows if row["id"] != 3)


def test_an_error_ends_the_job_unless_asked_otherwise(application, ray_session):
    processor = build_processor(
        serve_config(),
        preprocess=lambda row: {"method": "double", "dtype": "Asked", "request_kwargs": {"number": row["id"]}},
    )
    with pytest.raises(Exception) as caught:
        processor(ray_session.data.range(10)).take_all()
    assert "three is too much" in str(find_error(caught.value))


def test_a_method_that_is_no_generator(application, ray_session):
    processor = build_processor(
        serve_config(),
        preprocess=lambda row: {"method": "plain", "request_kwargs": {"number": row["id"]}},
        postprocess=lambda row: {"tripled": row["tripled"]},
    )
    rows = processor(ray_session.data.range(10)).take_all()
    assert sorted(row["tripled"] for row in rows) == [3 * i for i in range(10)]


def test_a_deployment_that_does_not_run(application, ray_session):
    processor = build_processor(
        serve_config(deployment_name="Nobody"),
        preprocess=lambda row: {"method": "x", "request_kwargs": {}},
    )
    with pytest.raises(Exception) as caught:
        processor(ray_session.data.range(2)).take_all()
    error = find_error(caught.value)
    assert isinstance(error, ConfigError)
    assert "Doubler" in str(error)


def test_the_example(application, ray_session, monkeypatch):
    monkeypatch.setattr("sys.argv", [str(EXAMPLE), application])
    names = {"__name__": "example"}
    exec(compile(EXAMPLE.read_text(encoding="utf-8"), str(EXAMPLE), "exec"), names)
    rows = names["processor"](ray_session.data.from_items(names["questions"])).take_all()
    assert len(rows) == len(names["questions"])
    assert all("capital" in json.dumps(row["answer"]) for row in rows)


def test_every_field_of_rays_configuration_is_known():
    module = pytest.importorskip("ray.data.llm")
    fields = set(module.ServeDeploymentProcessorConfig.model_fields)
    assert set(ServeDeploymentProcessorConfig.model_fields) == fields
