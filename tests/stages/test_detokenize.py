"""The detokenize stage."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from trunnion.events import ChoiceDelta, GenerateEvent, Usage
from trunnion.requests import GenerateRequest, SamplingParams, TokensPrompt
from trunnion_stages.config import DetokenizeConfig
from trunnion_stages.detokenize import DetokenizeStage

from .conftest import CORPUS, context

TEXTS = st.text(
    alphabet=st.one_of(
        st.sampled_from("abc the é日本👋🏽👨‍👩‍👧\u0301\u200d ,.\n\ufffd"), st.characters(exclude_categories=["Cs"])
    ),
    max_size=40,
)


@pytest.fixture(scope="module")
def tokenizers(byte_level, sentencepiece):
    return {path: Tokenizer.from_file(str(path / "tokenizer.json")) for path in (byte_level, sentencepiece)}


def chunks(ids, cuts):
    places = sorted({0, len(ids), *(cut % (len(ids) + 1) for cut in cuts)})
    return [ids[a:b] for a, b in itertools.pairwise(places)]


def opened(path, prompt=(), *, config=None, **sampling):
    request = GenerateRequest(prompt=TokensPrompt(token_ids=list(prompt)), sampling=SamplingParams(**sampling))
    return DetokenizeStage(context(path), DetokenizeConfig(**(config or {}))).open(request)


def text_of(path, pieces, prompt=(), *, reason="length", stop_reason=None, config=None, **sampling):
    detokenizer = opened(path, prompt, config=config, **sampling)
    texts = []
    for number, piece in enumerate(pieces):
        last = number == len(pieces) - 1
        delta = ChoiceDelta(
            token_ids=piece, finish_reason=reason if last else None, stop_reason=stop_reason if last else None
        )
        (event,) = detokenizer.feed(GenerateEvent(choices=(delta,)))
        assert event.choices[0].token_ids == piece
        texts.append(event.choices[0].text)
    assert detokenizer.finish() == ()
    return texts


@given(text=TEXTS, cuts=st.lists(st.integers(0, 400)))
@settings(max_examples=150)
def test_pieces_add_up_to_the_whole(tokenizers, byte_level, text, cuts):
    tokenizer = tokenizers[byte_level]
    ids = tokenizer.encode(text).ids
    pieces = text_of(byte_level, chunks(ids, cuts))
    assert "".join(pieces) == text
    if "\ufffd" not in text:
        assert "\ufffd" not in "".join(pieces)


@given(ids=st.lists(st.integers(0, 399), max_size=60), cuts=st.lists(st.integers(0, 400)))
@settings(max_examples=150)
def test_any_tokens_decode_as_the_whole(tokenizers, byte_level, ids, cuts):
    pieces = text_of(byte_level, chunks(ids, cuts), config={"flush_incomplete": True})
    assert "".join(pieces) == tokenizers[byte_level].decode(ids)


@pytest.mark.parametrize("kind", [0, 1])
@given(prompt=TEXTS, text=TEXTS, keep=st.floats(0, 1), cuts=st.lists(st.integers(0, 400)))
@settings(max_examples=100)
def test_equals_the_native_decode_stream(tokenizers, kind, **drawn):
    prompt, text, cuts = drawn["prompt"], drawn["text"], drawn["cuts"]
    path, tokenizer = list(tokenizers.items())[kind]
    primer = tokenizer.encode("Hello" + prompt.replace("\ufffd", "") + "a").ids
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    ids = ids[: round(drawn["keep"] * len(ids))]
    stream = DecodeStream(ids=primer, skip_special_tokens=True)
    theirs = "".join(stream.step(tokenizer, number) or "" for number in ids)
    assert "".join(text_of(path, chunks(ids, cuts), primer, config={"flush_incomplete": False})) == theirs


@given(ids=st.lists(st.integers(0, 290), max_size=40), cuts=st.lists(st.integers(0, 400)))
@settings(max_examples=150)
def test_events_may_be_cut_anywhere(tokenizers, sentencepiece, ids, cuts):
    one_by_one = "".join(text_of(sentencepiece, [[number] for number in ids], [260]))
    assert "".join(text_of(sentencepiece, chunks(ids, cuts), [260])) == one_by_one


def test_leading_space_after_a_prompt_is_kept(tokenizers, sentencepiece):
    the = tokenizers[sentencepiece].token_to_id("▁the")
    assert text_of(sentencepiece, [[the], [the]], [the]) == [" the", " the"]
    assert text_of(sentencepiece, [[the, the]], [the]) == [" the the"]
    assert text_of(sentencepiece, [[the], [the]], [the, 1, *[2] * 30]) == [" the", " the"]
    assert text_of(sentencepiece, [[the], [the]]) == ["the", " the"]


def test_a_character_is_never_split(tokenizers, byte_level):
    ids = tokenizers[byte_level].encode("𓀀").ids
    assert len(ids) == 4
    assert text_of(byte_level, [[number] for number in ids]) == ["", "", "", "𓀀"]
    assert text_of(byte_level, [ids[2:]], ids[:2]) == ["𓀀"]


def test_a_cut_off_character_is_replaced_or_dropped(tokenizers, byte_level):
    ids = tokenizers[byte_level].encode("a𓀀").ids[:-1]
    assert text_of(byte_level, [ids]) == ["a\ufffd"]
    assert text_of(byte_level, [[number] for number in ids]) == ["a", "", "", "\ufffd"]
    assert text_of(byte_level, [ids], config={"flush_incomplete": False}) == ["a"]
    detokenizer = opened(byte_level)
    detokenizer.feed(GenerateEvent(choices=(ChoiceDelta(index=2, token_ids=ids),)))
    assert detokenizer.finish() == (GenerateEvent(choices=(ChoiceDelta(index=2, text="\ufffd"),)),)


def test_invalid_bytes_do_not_hold_text_back_for_ever(tokenizers, byte_level):
    lead = tokenizers[byte_level].encode("𓀀").ids[0]
    pieces = text_of(byte_level, [[lead]] * 500)
    assert "".join(pieces) == "\ufffd" * 500
    assert any(pieces[:100])


def test_special_tokens(tokenizers, byte_level):
    assert text_of(byte_level, [[2], [70, 3]], skip_special_tokens=False)[0] == "<|im_start|>"
    assert text_of(byte_level, [[2], [70, 3]])[0] == ""


def test_the_token_that_stopped_is_no_text(byte_level):
    same = {"skip_special_tokens": False, "reason": "stop"}
    plain = text_of(byte_level, [[70]])
    assert text_of(byte_level, [[70, 1]], **same) == plain
    assert text_of(byte_level, [[70, 71]], stop_reason=71, **same) == plain
    assert text_of(byte_level, [[70, 1]], include_stop_str_in_output=True, **same) == [plain[0] + "</s>"]
    assert text_of(byte_level, [[70, 1]], skip_special_tokens=False) == [plain[0] + "</s>"]


def test_choices_are_independent_and_the_rest_passes(tokenizers, byte_level):
    fox, dog = (tokenizers[byte_level].encode(text).ids for text in ("𓀀", "𓁐"))
    detokenizer = opened(byte_level, n=2)
    texts = {0: "", 1: ""}
    for pair in zip(fox, dog, strict=True):
        deltas = tuple(ChoiceDelta(index=i, token_ids=[number]) for i, number in enumerate(pair))
        (event,) = detokenizer.feed(GenerateEvent(choices=deltas))
        for choice in event.choices:
            texts[choice.index] += choice.text
    assert texts == {0: "𓀀", 1: "𓁐"}
    usage = GenerateEvent(usage=Usage(prompt_tokens=1, completion_tokens=8))
    assert detokenizer.feed(usage) == (usage,)
    texted = GenerateEvent(choices=(ChoiceDelta(text="from the engine", token_ids=[70]),))
    assert detokenizer.feed(texted) == (texted,)
    assert detokenizer.feed(texted)[0] is texted


def test_long_text_is_decoded_by_windows(tokenizers, byte_level):
    text = (" ".join(CORPUS) * 40)[:6000]
    ids = tokenizers[byte_level].encode(text).ids
    assert "".join(text_of(byte_level, [[number] for number in ids])) == text


def test_nothing_to_do_without_detokenize(byte_level):
    stage = DetokenizeStage(context(byte_level), DetokenizeConfig())
    assert stage.open(GenerateRequest(prompt=TokensPrompt(token_ids=[1]), detokenize=False)) is None
