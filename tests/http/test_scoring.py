"""Scores, rankings and labels over HTTP, from the simulated engine."""

from contextlib import asynccontextmanager

import httpx
import pytest
from http_fakes import FakeModel, RunningServer

import trunnion
from trunnion_http import HTTPSettings, ModelDirectory, PipelineModel, create_app

CATS = ["a dog", "the cat sat", "where is the cat"]


@pytest.fixture(scope="module")
def web():
    directory = ModelDirectory([FakeModel("fake")])

    @asynccontextmanager
    async def lifespan():
        able = trunnion.engine_spec("sim", "sim", {"labels": ["good", "bad"], "adapters": ["loud"]})
        unable = trunnion.engine_spec("sim", "sim", {"unsupported": ["scores/1", "classifies/1"]})
        async with trunnion.open_pipeline(able) as one, trunnion.open_pipeline(unable) as two:
            directory.add(PipelineModel("sim", one))
            directory.add(PipelineModel("plain", two))
            yield

    app = create_app(directory, HTTPSettings(max_choices=8), lifespan=lifespan)
    with RunningServer(app) as server, httpx.Client(base_url=server.url, timeout=20) as client:
        yield client


def post(web, path, **body):
    response = web.post(path, json={"model": "sim", **body})
    assert response.status_code == 200, response.text
    return response.json()


def refused(web, path, **body):
    response = web.post(path, json={"model": "sim", **body})
    assert response.status_code == 400, response.text
    return response.json()["error"]


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
def test_documents_are_ordered_by_their_scores(web, path):
    made = post(web, path, query="where is the cat", documents=[CATS[0], {"text": CATS[1]}, CATS[2]])
    assert [one["index"] for one in made["results"]] == [2, 1, 0]
    assert made["results"][0]["document"] == {"text": CATS[2]}
    assert made["results"][0]["relevance_score"] == pytest.approx(1.0)
    assert made["usage"] == {"prompt_tokens": 21, "total_tokens": 21}
    assert made["model"] == "sim"


def test_a_ranking_may_be_cut_and_bare_and_keeps_the_order_of_equals(web):
    made = post(web, "/v1/rerank", query="cat", documents=["x", "cat", "cat"], top_n=2, return_documents=False)
    assert [sorted(one) for one in made["results"]] == [["index", "relevance_score"]] * 2
    assert [one["index"] for one in made["results"]] == [1, 2]
    assert len(post(web, "/v1/rerank", query="cat", documents=["x", "y"], top_n=0)["results"]) == 2


@pytest.mark.parametrize("path", ["/v1/score", "/score"])
def test_one_text_against_many_or_pairs(web, path):
    made = post(web, path, text_1="the cat", text_2=["the cat", "a dog"])
    assert [one["index"] for one in made["data"]] == [0, 1]
    assert made["data"][0]["score"] == pytest.approx(1.0)
    assert made["data"][1]["score"] < 0.9
    pairs = post(web, path, text_1=["a dog", "the cat"], text_2=["a dog", "a dog"])["data"]
    assert pairs[0]["score"] == pytest.approx(1.0)
    assert pairs[1]["score"] == pytest.approx(made["data"][1]["score"])
    assert len(post(web, path, text_1=["a"], text_2="b")["data"]) == 1


@pytest.mark.parametrize("path", ["/v1/classify", "/classify"])
def test_labels_with_all_their_probabilities(web, path):
    made = post(web, path, input=["a bad day", "a good day"])
    assert [one["label"] for one in made["data"]] == ["bad", "good"]
    first = made["data"][0]
    assert (first["num_classes"], first["labels"], first["index"]) == (2, ["good", "bad"], 0)
    assert sum(first["probs"]) == pytest.approx(1.0)
    assert made["usage"]["prompt_tokens"] == 6
    assert len(post(web, path, input=[[1, 2], [3]])["data"]) == 2


RERANK = {"query": "a", "documents": ["b"]}
SCORE = {"text_1": "a", "text_2": "b"}
CLASSIFY = {"input": "a"}


@pytest.mark.parametrize(("path", "body"), [("/v1/rerank", RERANK), ("/v1/score", SCORE), ("/v1/classify", CLASSIFY)])
def test_what_cannot_be_done_is_refused_by_name(web, path, body):
    for model in ("plain", "fake", "loud"):
        error = refused(web, path, **body, model=model)
        assert (error["code"], error["param"]) == ("unsupported_feature", "model")
    assert refused(web, path, **body, temperature=1)["param"] == "temperature"
    response = web.post(path, json={**body, "model": "nobody"})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")
    assert web.get(path).status_code == 405


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/score", {"text_1": ["a", "b"], "text_2": ["c"]}, "text_1"),
        ("/v1/score", {"text_1": "a", "text_2": []}, "text_2"),
        ("/v1/score", {"text_1": "a", "text_2": ["b"] * 9}, "text_2"),
        ("/v1/score", {"text_1": "a"}, "text_2"),
        ("/v1/rerank", {"query": "a", "documents": []}, "documents"),
        ("/v1/rerank", {"query": "a", "documents": ["b"] * 9}, "documents"),
        ("/v1/rerank", {"query": "a", "documents": ["b"], "top_n": -1}, "top_n"),
        ("/v1/rerank", {"documents": ["b"]}, "query"),
        ("/v1/classify", {"input": []}, "input"),
        ("/v1/classify", {"input": ["b"] * 9}, "input"),
    ],
)
def test_wrong_bodies_name_the_field(web, path, body, param):
    assert refused(web, path, **body)["param"] == param
