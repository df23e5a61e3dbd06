"""Rows of every task: which columns make a request, and which an answer or an error gets."""

import pytest

from trunnion import Capabilities, MessagesPrompt, TextPrompt, TokensPrompt, Usage, get_registry
from trunnion.errors import InvalidArgument, PluginNotFound, UnsupportedFeature
from trunnion.pooling import TASKS, PoolingAnswer, PoolingRequest, check_task, needs_of
from trunnion.row_tasks import TASK_COLUMNS, answer_columns, failed_columns, task_request
from trunnion.rows import RowColumns, RowOptions

USAGE = Usage(prompt_tokens=3, completion_tokens=0, cached_tokens=1)


def request(row, task, **options):
    return task_request(row, RowOptions(task=task, **options))


def refused(row, task, **options):
    with pytest.raises(InvalidArgument) as caught:
        request(row, task, **options)
    return caught.value.param


def test_prompts_of_every_kind_are_embedded_and_classified():
    for task in ("embed", "classify"):
        assert request({"prompt": "a", "id": 1}, task) == PoolingRequest(task=task, prompt=TextPrompt(text="a"))
        assert request({"prompt_token_ids": [1, 2]}, task).prompt == TokensPrompt(token_ids=[1, 2])
        assert isinstance(request({"messages": [{"role": "user", "content": "a"}]}, task).prompt, MessagesPrompt)
        assert refused({"id": 1}, task) == "messages"
    assert request({"prompt": "a", "model": "loud"}, "embed", dimensions=8).adapter == "loud"
    assert request({"prompt": "a"}, "embed", dimensions=8).dimensions == 8
    assert request({"prompt": "a", "model": "base"}, "classify", base_models=frozenset({"base"})).adapter is None


@pytest.mark.parametrize(
    ("texts", "wanted"),
    [("one", ("one",)), (["a", "b"], ("a", "b")), ('["a", "b"]', ("a", "b")), ("[sic] a text", ("[sic] a text",))],
)
def test_a_score_has_a_query_and_texts(texts, wanted):
    made = request({"query": "q", "texts": texts}, "score")
    assert made == PoolingRequest(task="score", prompt=TextPrompt(text="q"), texts=wanted)
    columns = RowColumns(query="question", texts="passages")
    assert request({"question": "q", "passages": texts}, "score", columns=columns) == made


def test_what_a_row_lacks_or_may_not_have_is_named():
    assert refused({"texts": ["a"]}, "score") == "query"
    for texts in (None, [], [1], 7, "[]", {"a": 1}):
        assert refused({"query": "q", "texts": texts}, "score") == "texts"
    for name, value in (("sampling_params", {"n": 2}), ("tools", []), ("tool_choice", "auto"), ("response_format", {})):
        assert refused({"prompt": "a", name: value}, "embed") == name
    for task in ("classify", "score"):
        assert refused({"prompt": "a", "query": "q", "texts": "t", "model": "loud"}, task) == "model"
    image = [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]
    assert refused({"messages": [{"role": "user", "content": image}]}, "embed") == "messages"


def test_options_are_of_a_task():
    for options, param in (
        ({"task": "rank"}, "task"),
        ({"task": "embed", "sampling": {"n": 1}}, "sampling"),
        ({"dimensions": 3}, "dimensions"),
        ({"task": "score", "dimensions": 3}, "dimensions"),
    ):
        with pytest.raises(InvalidArgument) as caught:
            RowOptions(**options)
        assert caught.value.param == param


def test_answers_and_errors_have_the_columns_of_their_task():
    answers = {
        "embed": PoolingAnswer(task="embed", usage=USAGE, vector=(0.5, 1.0)),
        "classify": PoolingAnswer(task="classify", usage=USAGE, probabilities={"a": 0.25, "b": 0.75}),
        "score": PoolingAnswer(task="score", usage=USAGE, scores=(0.5,)),
    }
    made = {task: answer_columns(answer) for task, answer in answers.items()}
    assert made["embed"]["embedding"] == [0.5, 1.0]
    assert made["score"]["scores"] == [0.5]
    assert (made["classify"]["predicted_label"], made["classify"]["label_names"]) == ("b", ["a", "b"])
    assert made["classify"]["label_probabilities"] == [0.25, 0.75]
    for task, columns in made.items():
        assert tuple(columns) == TASK_COLUMNS[task]
        assert (columns["num_input_tokens"], columns["usage"]["cached_tokens"], columns["error"]) == (3, 1, None)
    for task in TASKS:
        failed = failed_columns(InvalidArgument("no", param="prompt"), task)
        assert set(failed) == set(TASK_COLUMNS[task])
        assert (failed["error"]["param"], failed["num_input_tokens"]) == ("prompt", 0)


def test_an_engine_without_a_task_is_refused_before_it_starts():
    able = Capabilities.of(protocols=["embeds/1"])
    check_task("embed", "e", able)
    check_task("generate", "e", Capabilities.of())
    assert (needs_of("score"), needs_of("generate")) == (("scores/1",), ())
    with pytest.raises(UnsupportedFeature, match="cannot classify") as caught:
        check_task("classify", "e", able)
    assert (caught.value.param, caught.value.details["feature"]) == ("task", "classifies/1")


def test_auto_chooses_by_what_is_needed():
    with pytest.raises(PluginNotFound, match="sim: it has no handoff"):
        get_registry().engine_spec("auto", "some/model", needs=["handoff"])
