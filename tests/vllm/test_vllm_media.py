"""Media beside prompts become what vLLM's renderer takes; the renderer itself is a stand-in here."""

import importlib
import sys
from types import ModuleType, SimpleNamespace

import pytest

import trunnion_vllm
from trunnion.errors import ContextOverflow, InvalidArgument, UnsupportedFeature
from trunnion.requests import GenerateRequest, MediaPart, MessagesPrompt, SamplingParams, TextPrompt, TokensPrompt
from trunnion_vllm.capabilities import UPPER_BOUND
from trunnion_vllm.prompts import PromptMaker

PNG = MediaPart(type="image", data=b"\x89PNG")
JPEG = MediaPart(type="image", data=b"\xff\xd8\xff", mime_type="image/jpeg")
URL = MediaPart(type="image", url="https://example.com/a.png")
PNG_PART = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}}
JPEG_PART = {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,/9j/"}}
URL_PART = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}


@pytest.fixture
def media(monkeypatch):
    """Return the module under test, over a stand-in for vLLM."""
    fake = ModuleType("trunnion_vllm._vllm")
    fake.ChatParams = SimpleNamespace
    fake.EngineDeadError = fake.EngineGenerateError = KeyError
    fake.BUSY_ERRORS = fake.RETRYABLE_ERRORS = fake.NOT_FOUND_ERRORS = ()
    fake.CLIENT_ERRORS = (ValueError,)
    monkeypatch.setitem(sys.modules, "trunnion_vllm._vllm", fake)
    monkeypatch.setattr(trunnion_vllm, "_vllm", fake, raising=False)
    monkeypatch.delitem(sys.modules, "trunnion_vllm.media", raising=False)
    yield importlib.import_module("trunnion_vllm.media")
    sys.modules.pop("trunnion_vllm.media", None)


class Renderer:
    def __init__(self):
        self.seen = []

    async def render_chat_async(self, conversations, params):
        self.seen.append((conversations[0], params))
        return conversations, [{"type": "multimodal", "prompt_token_ids": [5] * 9}]

    async def render_messages_async(self, messages, params):
        self.seen.append((messages, params))
        return messages, {"prompt": "", "multi_modal_data": {"image": ["loaded"]}, "multi_modal_uuids": None}

    async def render_cmpl_async(self, prompts):
        self.seen.append(prompts[0])
        return [{"type": "multimodal", "prompt_token_ids": [5] * 9}]


@pytest.fixture
def llm(media):
    tokenizer = SimpleNamespace(encode=lambda text, add_special_tokens: [len(text), int(add_special_tokens)])
    return SimpleNamespace(renderer=Renderer(), get_tokenizer=lambda: tokenizer)


async def made(llm, prompt, *parts, context=100, **fields):
    sampling = SamplingParams(max_tokens=4)
    return await PromptMaker(llm, context).make(
        GenerateRequest(prompt=prompt, media=parts, sampling=sampling, **fields)
    )


async def test_messages_that_hold_their_media_go_as_they_are(llm):
    messages = [{"role": "user", "content": [{"type": "text", "text": "what is this?"}, PNG_PART]}]
    prompt = MessagesPrompt(messages=messages, chat_template="T", chat_template_kwargs={"thinking": False})
    answer = await made(llm, prompt, PNG, cache_salt="tenant")
    assert answer == {"type": "multimodal", "prompt_token_ids": [5] * 9, "cache_salt": "tenant"}
    ((sent, params),) = llm.renderer.seen
    assert sent == messages
    assert params.chat_template == "T"
    assert params.chat_template_kwargs == {
        "add_generation_prompt": True,
        "continue_final_message": False,
        "tokenize": False,
        "thinking": False,
    }


async def test_media_beside_messages_go_before_the_last_users_text(llm):
    messages = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": "and these?"},
    ]
    await made(llm, MessagesPrompt(messages=messages), PNG, JPEG)
    ((sent, _),) = llm.renderer.seen
    assert sent[:2] == messages[:2]
    assert sent[2]["content"] == [PNG_PART, JPEG_PART, {"type": "text", "text": "and these?"}]
    assert messages[2]["content"] == "and these?"


@pytest.mark.parametrize(
    ("prompt", "ids"),
    [
        (TextPrompt(text="<image>", add_special_tokens=False), [7, 0]),
        (TokensPrompt(token_ids=(3, 4)), [3, 4]),
    ],
)
async def test_text_and_tokens_go_with_the_loaded_media(llm, prompt, ids):
    await made(llm, prompt, PNG)
    (messages, _), sent = llm.renderer.seen
    assert messages == [{"role": "user", "content": [PNG_PART]}]
    assert sent == {"prompt_token_ids": ids, "multi_modal_data": {"image": ["loaded"]}, "multi_modal_uuids": None}


async def test_what_the_media_take_counts_for_the_context(llm):
    with pytest.raises(ContextOverflow, match="9 tokens"):
        await made(llm, TokensPrompt(token_ids=(3, 4)), PNG, context=10)


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([{"role": "user", "content": [PNG_PART, PNG_PART]}], "hold 2 media parts .* and the request 1"),
        ([{"role": "assistant", "content": "hi"}], "no user message"),
    ],
)
async def test_media_that_belong_nowhere_are_refused(llm, messages, said):
    with pytest.raises(InvalidArgument, match=said):
        await made(llm, MessagesPrompt(messages=messages), PNG)


@pytest.mark.parametrize(
    "prompt",
    [
        MessagesPrompt(messages=[{"role": "user", "content": [URL_PART]}]),
        MessagesPrompt(messages=[{"role": "user", "content": "what is this?"}]),
        TextPrompt(text="<image>"),
        TokensPrompt(token_ids=(3, 4)),
    ],
)
@pytest.mark.parametrize("url", ["https://example.com/a.png", "http://127.0.0.1/", "file:///etc/passwd", "ftp://x/"])
async def test_no_url_reaches_vllm(llm, prompt, url):
    with pytest.raises(UnsupportedFeature, match="fetches no media") as caught:
        await made(llm, prompt, MediaPart(type="image", url=url))
    assert caught.value.param == "media[0].url"
    assert llm.renderer.seen == []


async def test_a_url_in_the_place_of_data_does_not_reach_vllm(llm):
    held = {"type": "image_url", "image_url": {"url": "http://169.254.169.254/", "detail": "auto"}}
    await made(llm, MessagesPrompt(messages=[{"role": "user", "content": [held]}]), PNG)
    ((sent, _),) = llm.renderer.seen
    assert sent == [{"role": "user", "content": [PNG_PART]}]


async def test_parts_are_made_anew_so_that_vllm_reads_nothing_else_in_them(llm):
    """A part that calls itself text makes vLLM look for media in its other fields, where it has a uuid."""
    parts = [
        {"type": "text", "text": "a", "uuid": "u", "image_url": "http://169.254.169.254/"},
        {"type": "input_text", "text": "b", "video_url": "http://169.254.169.254/"},
        {"type": "refusal", "refusal": "c"},
        "d",
        {**PNG_PART, "audio_url": "http://169.254.169.254/"},
        {"type": "input_audio", "input_audio": {"data": "eA==", "format": "wav", "url": "http://169.254.169.254/"}},
    ]
    sound = MediaPart(type="audio", data=b"x", mime_type="audio/wav")
    await made(llm, MessagesPrompt(messages=[{"role": "user", "content": parts}]), PNG, sound)
    ((sent, _),) = llm.renderer.seen
    assert sent[0]["content"] == [
        *({"type": "text", "text": letter} for letter in "abcd"),
        PNG_PART,
        {"type": "input_audio", "input_audio": {"data": "eA==", "format": "wav"}},
    ]


@pytest.mark.parametrize(
    ("part", "place"),
    [
        ({"image_url": "http://169.254.169.254/"}, "messages[0].content[1].type"),
        ({"type": "input_image", "image_url": "http://169.254.169.254/"}, "messages[0].content[1].type"),
        ({"type": "image_embeds", "image_embeds": "x"}, "messages[0].content[1].type"),
        ({"type": "image_pil", "image_pil": "x"}, "messages[0].content[1].type"),
        ({"type": "file", "file": {}}, "messages[0].content[1].type"),
        (7, "messages[0].content[1].type"),
        ({"type": "text", "text": 7}, "messages[0].content[1].text"),
    ],
)
async def test_parts_that_vllm_could_load_by_itself_are_refused(llm, part, place):
    with pytest.raises(InvalidArgument) as caught:
        await made(llm, MessagesPrompt(messages=[{"role": "user", "content": [PNG_PART, part]}]), PNG)
    assert caught.value.param == place
    assert llm.renderer.seen == []


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ({"type": "image_url", "image_url": {"url": "x", "detail": "low"}}, "detail"),
        ({**PNG_PART, "uuid": "another's"}, "uuid"),
    ],
)
async def test_fields_that_would_be_ignored_or_misused_are_refused(llm, part, name):
    with pytest.raises(UnsupportedFeature) as caught:
        await made(llm, MessagesPrompt(messages=[{"role": "user", "content": [part]}]), PNG)
    assert caught.value.param == f"messages[0].content[0].image_url.{name}"


@pytest.mark.parametrize("kind", ["image", "audio", "video"])
def test_every_kind_has_its_part(media, kind):
    part = media.wire_part(MediaPart(type=kind, data=b"x", mime_type=f"{kind}/z"))
    assert part == {"type": f"{kind}_url", f"{kind}_url": {"url": f"data:{kind}/z;base64,eA=="}}
    with pytest.raises(InvalidArgument, match="url or data"):
        media.wire_part(MediaPart(type=kind))


@pytest.mark.parametrize(
    ("multimodal", "limits", "wanted"),
    [(False, {}, set()), (True, {"image": 0, "video": 2, "audio": None}, {"video", "audio"})],
)
def test_the_model_says_what_it_takes(media, multimodal, limits, wanted):
    processor = SimpleNamespace(info=SimpleNamespace(allowed_mm_limits=limits))
    llm = SimpleNamespace(
        model_config=SimpleNamespace(is_multimodal_model=multimodal),
        renderer=SimpleNamespace(get_mm_processor=lambda: processor),
    )
    assert media.modalities(llm) == wanted


def test_messages_with_media_go_to_the_engine_whole():
    request = GenerateRequest(prompt=MessagesPrompt(messages=[]), media=(PNG,))
    assert UPPER_BOUND.prompts_for(request)[0] == "messages"
