"""The mapping of rows: prompts, sampling, defaults, what Arrow and NumPy make of values, and the way back."""

import json
import time

import numpy as np
import pyarrow as pa
import pytest

from trunnion import (
    ChoiceDelta,
    Completion,
    GenerateEvent,
    JsonObject,
    JsonSchema,
    MessagesPrompt,
    Regex,
    SamplingParams,
    TextPrompt,
    TokenLogprob,
    TokensPrompt,
    ToolCallDelta,
    Usage,
)
from trunnion.errors import ContextOverflow, InvalidArgument
from trunnion.rows import (
    OUTPUT_COLUMNS,
    RowColumns,
    RowOptions,
    completion_to_columns,
    error_columns,
    error_from_column,
    row_to_request,
)

HELLO = [{"role": "user", "content": "hello"}]
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


def refused(row, options=None):
    with pytest.raises(InvalidArgument) as caught:
        row_to_request(row, options or RowOptions())
    return caught.value


def test_each_kind_of_prompt():
    assert row_to_request({"messages": HELLO}).prompt == MessagesPrompt(messages=HELLO)
    assert row_to_request({"prompt": "hello"}).prompt == TextPrompt(text="hello")
    assert row_to_request({"prompt_token_ids": [1, 2]}).prompt == TokensPrompt(token_ids=[1, 2])
    assert row_to_request({"messages": json.dumps(HELLO)}).prompt == MessagesPrompt(messages=HELLO)
    assert row_to_request({"messages": HELLO}).delivery == "final"


def test_messages_win_over_ids_over_text_and_nulls_are_absent():
    row = {"messages": None, "prompt_token_ids": [3], "prompt": "x"}
    assert row_to_request(row).prompt == TokensPrompt(token_ids=[3])
    assert row_to_request({**row, "messages": HELLO}).prompt.kind == "messages"
    assert row_to_request({**row, "prompt_token_ids": None}).prompt.kind == "text"


@pytest.mark.parametrize(
    ("row", "param"),
    [
        ({"item": 1}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "no json"}, "messages"),
        ({"messages": ["hello"]}, "messages[0]"),
        ({"messages": [*HELLO, {"content": "x"}]}, "messages[1]"),
        ({"prompt": 7}, "prompt"),
        ({"prompt_token_ids": []}, "prompt_token_ids"),
        ({"prompt_token_ids": [1, "2"]}, "prompt_token_ids"),
        ({"prompt": "x", "model": 3}, "model"),
        ({"prompt": "x", "tools": TOOL}, "tools"),
        ({"prompt": "x", "tools": [{"type": "function"}]}, "tools[0]"),
        ({"prompt": "x", "tool_choice": "maybe"}, "tool_choice"),
        ({"prompt": "x", "response_format": {"type": "xml"}}, "response_format.type"),
        ({"prompt": "x", "response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        ({"prompt": "x", "sampling_params": 3}, "sampling_params"),
        ({"prompt": "x", "sampling_params": {"temperature": "hot"}}, "sampling_params.temperature"),
        ({"prompt": "x", "sampling_params": {"temperature": -1}}, "sampling_params.temperature"),
        ({"prompt": "x", "sampling_params": {"max_tokens": True}}, "sampling_params.max_tokens"),
        ({"prompt": "x", "sampling_params": {"stop": [1]}}, "sampling_params.stop"),
        ({"prompt": "x", "sampling_params": {"top_logprobs": 2}}, "sampling_params.top_logprobs"),
        ({"prompt": "x", "sampling_params": {"logit_bias": {"a": 1}}}, "sampling_params.logit_bias"),
        ({"prompt": "x", "sampling_params": {"structured_outputs": {}}}, "sampling_params.structured_outputs"),
        (
            {"prompt": "x", "sampling_params": {"max_tokens": 3, "max_completion_tokens": 4}},
            "sampling_params.max_tokens",
        ),
        ({"prompt": "x", "sampling_params": {"temperature": object()}}, "sampling_params.temperature"),
    ],
)
def test_a_bad_row_is_refused_by_the_name_of_its_column(row, param):
    error = refused(row)
    assert error.param == param
    assert param.split("[")[0].split(".")[0] in error.message


def test_an_unknown_sampling_key_is_refused_with_a_suggestion():
    error = refused({"prompt": "x", "sampling_params": {"temprature": 1}})
    assert error.param == "sampling_params.temprature"
    assert "did you mean 'temperature'?" in error.message


def test_sampling_takes_the_names_of_openai_and_vllm():
    given = {
        "max_completion_tokens": 5,
        "stop": "END",
        "logprobs": True,
        "top_logprobs": 3,
        "logit_bias": {"7": -5},
        "stop_token_ids": [1],
        "top_k": 4,
        "seed": None,
        "guided_decoding": {"regex": "a+"},
        "detokenize": False,
    }
    request = row_to_request({"prompt": "x", "sampling_params": given})
    assert request.sampling == SamplingParams(
        max_tokens=5, stop=("END",), logprobs=3, logit_bias={7: -5}, stop_token_ids=(1,), top_k=4
    )
    assert request.output_format == Regex(pattern="a+")
    assert request.detokenize is False


def test_a_rows_sampling_wins_over_the_defaults_key_by_key():
    options = RowOptions(sampling={"max_tokens": 9, "temperature": 0.5})
    row = {"prompt": "x", "sampling_params": {"max_completion_tokens": 3, "temperature": None}}
    assert row_to_request(row, options).sampling == SamplingParams(max_tokens=3, temperature=0.5)
    assert row_to_request({"prompt": "x"}, options).sampling == SamplingParams(max_tokens=9, temperature=0.5)


def test_wrong_defaults_are_refused_before_any_row():
    with pytest.raises(InvalidArgument, match=r"sampling\.max_token .*max_tokens"):
        RowOptions(sampling={"max_token": 1})


def test_equal_sampling_is_converted_once_and_unequal_types_are_kept_apart():
    options = RowOptions()
    first = row_to_request({"prompt": "x", "sampling_params": {"max_tokens": 1}}, options).sampling
    assert row_to_request({"prompt": "y", "sampling_params": {"max_tokens": 1}}, options).sampling is first
    assert refused({"prompt": "x", "sampling_params": {"max_tokens": True}}, options).param
    long = [*range(2000)]
    for last in (1, 2):
        row = {"prompt": "x", "sampling_params": {"stop_token_ids": np.array([*long, last])}}
        assert row_to_request(row, options).sampling.stop_token_ids[-1] == last


def test_rows_as_arrow_and_numpy_hold_them():
    tool = {"type": "function", "function": {"name": "t", "parameters": {"properties": {"city": {"type": "string"}}}}}
    other = {"type": "function", "function": {"name": "u", "parameters": {"properties": {"day": {"type": "string"}}}}}
    table = pa.Table.from_pylist(
        [
            {"messages": HELLO, "sampling_params": {"max_tokens": 4}, "tools": [tool]},
            {
                "messages": [{"role": "user", "content": "x", "name": "me"}],
                "sampling_params": {"seed": 1},
                "tools": [other],
            },
        ]
    )
    row = table.to_pylist()[0]
    request = row_to_request(row)
    assert request.prompt == MessagesPrompt(messages=HELLO)
    assert request.sampling == SamplingParams(max_tokens=4)
    assert request.tools == (tool,)
    row = {"messages": np.array(HELLO, dtype=object), "sampling_params": {"max_tokens": np.float64(4)}}
    assert row_to_request(row).sampling.max_tokens == 4
    assert row_to_request({"prompt_token_ids": np.array([1, 2])}).prompt == TokensPrompt(token_ids=[1, 2])


def test_formats_tools_and_adapters():
    schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}
    options = RowOptions(base_models=frozenset({"base"}), adapter="loud", chat_template_kwargs={"a": 1})
    row = {
        "messages": HELLO,
        "model": "base",
        "tools": [TOOL],
        "tool_choice": "auto",
        "response_format": schema,
        "chat_template_kwargs": {"b": 2},
    }
    request = row_to_request(row, options)
    assert request.adapter is None
    assert request.tools == (TOOL,)
    assert request.tool_choice == "auto"
    assert request.output_format == JsonSchema(schema={"type": "object"}, name="n")
    assert request.prompt.chat_template_kwargs == {"a": 1, "b": 2}
    assert row_to_request({"messages": HELLO}, options).adapter == "loud"
    assert row_to_request({"messages": HELLO, "model": "quiet"}, options).adapter == "quiet"
    assert row_to_request({"prompt": "x", "response_format": {"type": "text"}}).output_format is None
    assert row_to_request({"prompt": "x", "response_format": '{"type": "json_object"}'}).output_format == JsonObject()
    twice = {"prompt": "x", "response_format": schema, "sampling_params": {"guided_decoding": {"regex": "a"}}}
    assert refused(twice).param == "response_format"


def test_columns_can_be_renamed_and_switched_off():
    options = RowOptions(columns=RowColumns(prompt="question", messages="", sampling_params="sp"))
    assert row_to_request({"messages": HELLO, "question": "why?"}, options).prompt == TextPrompt(text="why?")
    assert refused({"question": "why?", "sp": {"temp": 1}}, options).param == "sp.temp"
    assert refused({"prompt": "x"}, options).param == "question"


def completion(*events):
    made = Completion()
    for event in events:
        made.add(event)
    return made


def test_a_completion_becomes_every_column():
    call = ToolCallDelta(index=0, id="c1", name="weather", arguments='{"city": "Rome"}')
    delta = ChoiceDelta(text="hi", token_ids=(4, 5), tool_calls=(call,), reasoning="so", finish_reason="tool_calls")
    usage = Usage(prompt_tokens=3, completion_tokens=2, cached_tokens=1)
    columns = completion_to_columns(completion(GenerateEvent(choices=(delta,), usage=usage)))
    assert tuple(columns) == OUTPUT_COLUMNS
    assert columns["generated_text"] == "hi"
    assert columns["generated_tokens"] == [4, 5]
    assert columns["finish_reason"] == "tool_calls"
    assert (columns["num_input_tokens"], columns["num_generated_tokens"]) == (3, 2)
    assert columns["usage"]["total_tokens"] == 5
    assert json.loads(columns["tool_calls"])[0]["function"] == {"name": "weather", "arguments": '{"city": "Rome"}'}
    assert columns["reasoning"] == "so"
    assert columns["choices"] is None
    assert columns["error"] is None


def test_several_choices_and_logprobs_are_kept_whole():
    likely = TokenLogprob(token_id=4, token="a", logprob=-0.1)
    deltas = (
        ChoiceDelta(index=0, text="a", token_ids=(4,), logprobs=(likely,), finish_reason="stop"),
        ChoiceDelta(index=1, text="b", token_ids=(5,), finish_reason="length"),
    )
    usage = Usage(prompt_tokens=1, completion_tokens=2)
    columns = completion_to_columns(
        completion(GenerateEvent(choices=deltas, usage=usage, prompt_logprobs=(None, likely)))
    )
    assert columns["generated_text"] == "a"
    choices = json.loads(columns["choices"])
    assert [choice["text"] for choice in choices] == ["a", "b"]
    assert choices[0]["logprobs"] == [{"token_id": 4, "token": "a", "logprob": -0.1}]
    assert json.loads(columns["prompt_logprobs"])[0] is None


def test_an_error_becomes_every_column_survives_parquet_and_comes_back(tmp_path):
    import pyarrow.parquet as pq

    error = ContextOverflow("too long", param="messages", details={"prompt_tokens": 9}, retry_after=1.5)
    columns = error_columns(error)
    assert tuple(columns) == OUTPUT_COLUMNS
    assert columns["generated_text"] is None
    path = tmp_path / "rows.parquet"
    rows = [columns, error_columns(InvalidArgument("no"))]
    pq.write_table(pa.Table.from_pylist(rows), path)
    back = error_from_column(pq.read_table(path).to_pylist()[0]["error"])
    assert type(back) is ContextOverflow
    assert back.to_dict() == error.to_dict()


def test_mapping_is_fast_enough_for_ten_thousand_rows_a_second():
    options = RowOptions(sampling={"temperature": 0})
    row = {"messages": HELLO, "sampling_params": {"max_tokens": 16, "ignore_eos": True, "stop": ["x"]}}
    best = min(_seconds(row, options) for _ in range(5))
    assert best < 0.05, f"{best * 1e6 / 1000:.0f} us per row"


def _seconds(row, options):
    began = time.process_time()
    for _ in range(1000):
        row_to_request(row, options)
    return time.process_time() - began
