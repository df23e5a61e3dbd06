"""The tokenize stage."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from tokenizers import Tokenizer

from trunnion.errors import InvalidArgument
from trunnion.requests import GenerateRequest, MessagesPrompt, TextPrompt, TokensPrompt
from trunnion_stages.chat_template import ChatTemplateStage
from trunnion_stages.config import ChatTemplateConfig, TokenizeConfig
from trunnion_stages.tokenize import TokenizeStage

from .conftest import CORPUS, context


def ids(path, *texts, special=True):
    stage = TokenizeStage(context(path), TokenizeConfig())
    results = stage.process([GenerateRequest(prompt=TextPrompt(text=t, add_special_tokens=special)) for t in texts])
    for result, text in zip(results, texts, strict=True):
        assert isinstance(result.prompt, TokensPrompt)
        assert result.prompt.text == text
    return [list(result.prompt.token_ids) for result in results]


@pytest.mark.parametrize("rows", [1, 40])
@pytest.mark.parametrize("special", [True, False])
def test_bos_is_added_once_and_only_where_asked(with_bos, rows, special):
    encoded = ids(with_bos, *["Hello world"] * rows, special=special)
    assert len(encoded) == rows
    assert all((row[0] == 0) is special and row.count(0) == special for row in encoded)


@pytest.mark.parametrize("rows", [1, 40])
def test_bos_in_the_text_is_not_doubled(with_bos, byte_level, rows):
    for path in (with_bos, byte_level):
        for row in ids(path, *["<s>Hello"] * rows):
            assert row[0] == 0
            assert row.count(0) == 1


def test_bos_of_a_template_is_not_doubled(with_bos):
    template = ChatTemplateStage(context(with_bos), ChatTemplateConfig())
    request = GenerateRequest(prompt=MessagesPrompt(messages=[{"role": "user", "content": "Hello"}]))
    (result,) = TokenizeStage(context(with_bos), TokenizeConfig()).process(template.process([request]))
    assert list(result.prompt.token_ids).count(0) == 1


def test_nothing_is_cut_off(byte_level, tmp_path):
    tokenizer = Tokenizer.from_file(str(byte_level / "tokenizer.json"))
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=9)
    for file in byte_level.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert ids(tmp_path, CORPUS[0] * 9, "a") == ids(byte_level, CORPUS[0] * 9, "a")


@pytest.mark.parametrize("rows", [1, 40])
@pytest.mark.parametrize("text", [None, 3, "half an emoji: \ud83d"])
def test_a_bad_row_leaves_its_neighbours_alone(byte_level, rows, text):
    stage = TokenizeStage(context(byte_level), TokenizeConfig())
    good = GenerateRequest(prompt=TextPrompt(text="Hello"))
    bad = GenerateRequest(prompt=TextPrompt(text=text))
    tokens = GenerateRequest(prompt=TokensPrompt(token_ids=[1]))
    first, error, same, *rest = stage.process([good, bad, tokens, *[good] * rows])
    assert isinstance(error, InvalidArgument)
    assert error.param == "prompt"
    assert same is tokens
    assert all(result.prompt == first.prompt for result in rest)


def test_threads_share_a_stage(with_bos):
    stage = TokenizeStage(context(with_bos), TokenizeConfig())
    template = ChatTemplateStage(context(with_bos), ChatTemplateConfig())

    def work(number):
        chat = MessagesPrompt(messages=[{"role": "user", "content": f"Hello {number}"}])
        rows = [GenerateRequest(prompt=chat)] * (1 + number % 20)
        rows += [GenerateRequest(prompt=TextPrompt(text=f"Hi {number}"))] * (number % 3)
        return [list(result.prompt.token_ids) for result in stage.process(template.process(rows))]

    alone = [work(number) for number in range(60)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(60))) == alone
