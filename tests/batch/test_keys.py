"""A key covers all that determines an answer, and nothing else."""

import time

import pytest

from trunnion import (
    GenerateRequest,
    JsonObject,
    MediaPart,
    MessagesPrompt,
    Prepared,
    SamplingParams,
    TextPrompt,
    TokensPrompt,
    engine_spec,
)
from trunnion_batch.keys import RequestKeys

SPEC = engine_spec("sim", "model-a")


def keys(spec=SPEC, version="1", **options):
    return RequestKeys(spec, version, **options)


def request(prompt="hello", sampling=None, **fields):
    prompt = TextPrompt(text=prompt) if isinstance(prompt, str) else prompt
    return GenerateRequest(prompt=prompt, sampling=SamplingParams(**(sampling or {"max_tokens": 4})), **fields)


DIFFERENT = {
    "prompt": request("hullo"),
    "kind": request(TokensPrompt(token_ids=[104])),
    "special tokens": request(TextPrompt(text="hello", add_special_tokens=False)),
    "messages": request(MessagesPrompt(messages=[{"role": "user", "content": "hello"}])),
    "template": request(MessagesPrompt(messages=[{"role": "user", "content": "hello"}], chat_template_kwargs={"a": 1})),
    "max_tokens": request(sampling={"max_tokens": 5}),
    "temperature": request(sampling={"max_tokens": 4, "temperature": 0.5}),
    "zero temperature": request(sampling={"max_tokens": 4, "temperature": 0.0}),
    "seed": request(sampling={"max_tokens": 4, "seed": 0}),
    "stop": request(sampling={"max_tokens": 4, "stop": ["a"]}),
    "n": request(sampling={"max_tokens": 4, "n": 2}),
    "bias": request(sampling={"max_tokens": 4, "logit_bias": {1: 2.0}}),
    "adapter": request(adapter="pirate"),
    "tools": request(tools=({"type": "function", "function": {"name": "f"}},)),
    "choice": request(tool_choice="none"),
    "parallel": request(parallel_tool_calls=False),
    "format": request(output_format=JsonObject()),
    "media": request(media=(MediaPart(type="image", data=b"1", mime_type="image/png"),)),
    "other media": request(media=(MediaPart(type="image", data=b"2", mime_type="image/png"),)),
    "extra": request(extra={"sim": {"a": 1}}),
    "salt": request(cache_salt="tenant"),
}


def test_what_determines_an_answer_is_in_the_key():
    made = {name: keys().key(one) for name, one in {"plain": request(), **DIFFERENT}.items()}
    assert len(set(made.values())) == len(made)
    assert {len(key) for key in made.values()} == {16}


@pytest.mark.parametrize(
    "fields",
    [
        {"request_id": "other"}, {"priority": 3}, {"deadline": time.time() + 9}, {"tenant": "t"}, {"session": "s"},
        {"trace": {"traceparent": "x"}}, {"delivery": "final"}, {"notes": {"a": 1}}, {"model": "served-name"},
    ],
    ids=lambda fields: next(iter(fields)),
)  # fmt: skip
def test_what_does_not_is_not(fields):
    assert keys().key(request(**fields)) == keys().key(request())


def test_keys_are_the_same_in_every_process_and_release():
    """A journal outlives the process that wrote it; if this fails, raise the format number in keys.py."""
    assert keys().key(request()).hex() == "f8fdb44f4227f3afd5dfd6f5a52f9c54"
    assert keys().key(DIFFERENT["bias"]) == keys().key(request(sampling={"logit_bias": {1: 2.0}, "max_tokens": 4}))


def test_the_engine_is_in_the_key():
    plain = keys().key(request())
    others = [
        keys(engine_spec("sim", "model-b")),
        keys(version="2"),
        keys(hooks={"redact": {"a": 1}}),
    ]
    assert plain not in [one.key(request()) for one in others]
    assert keys(engine_spec("sim", "model-a", {"max_num_seqs": 7})).key(request()) == plain


def test_the_rendered_prompt_counts():
    asked = request(MessagesPrompt(messages=[{"role": "user", "content": "hello"}]))
    rendered = [Prepared(request=asked.with_(prompt=TokensPrompt(token_ids=ids))) for ids in ([1, 2], [1, 3])]
    first, second = (keys().key(asked, one) for one in rendered)
    assert first != second
    assert keys().key(asked.with_(prompt=TextPrompt(text="else")), rendered[0]) == first


def test_a_sampling_object_that_took_the_place_of_another_is_told_apart():
    made = keys()
    seen = set()
    for number in range(50):  # objects are freed and their ids given to the next ones
        seen.add(made.key(request(sampling={"max_tokens": number + 1})))
    assert len(seen) == 50
