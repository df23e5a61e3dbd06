"""Images reach a real vision model of random weights: what they show changes what it says."""

import io

import pytest
from tiny_vision import QUERIES, make
from vllm_settings import SETTINGS

from trunnion.completion import collect
from trunnion.errors import InvalidArgument
from trunnion.requests import GenerateRequest, MediaPart, MessagesPrompt, SamplingParams, TextPrompt, TokensPrompt
from trunnion_vllm.config import VLLMConfig

pytestmark = pytest.mark.engine

ASKED = "<|im_start|>user\nwhat is this?<|im_end|>\n<|im_start|>assistant\n"


def image(colour):
    from PIL import Image

    with io.BytesIO() as file:
        Image.new("RGB", (40, 28), colour).save(file, format="PNG")
        return MediaPart(type="image", data=file.getvalue(), mime_type="image/png")


async def answer(engine, prompt, *media):
    sampling = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True)
    return await collect(engine.generate(GenerateRequest(prompt=prompt, media=media, sampling=sampling)))


async def test_a_vision_model_sees(vllm_environment, model, tmp_path):
    from transformers import AutoTokenizer

    from trunnion_vllm.engine import VLLMEngine
    from trunnion_vllm.media import wire_part

    path = make(tmp_path / "tiny", model)
    ids = AutoTokenizer.from_pretrained(path).encode(ASKED, add_special_tokens=False)
    engine = VLLMEngine(path, VLLMConfig(**{**SETTINGS, "engine_kwargs": {}, "max_model_len": 256}, gc_freeze=False))
    info = await engine.start()
    try:
        supported = [info.capabilities.support(f"media.{kind}") for kind in ("image", "audio", "video")]
        assert supported == ["yes", "no", "no"]
        red, blue = image("red"), image("blue")
        beside = MessagesPrompt(messages=[{"role": "user", "content": "what is this?"}])
        inside = MessagesPrompt(
            messages=[{"role": "user", "content": [wire_part(red), {"type": "text", "text": "what is this?"}]}]
        )
        seen = await answer(engine, beside, red)
        tokens = seen.choices[0].token_ids
        assert seen.usage.prompt_tokens == QUERIES + len(ids)
        for prompt in (inside, TextPrompt(text=ASKED, add_special_tokens=False), TokensPrompt(token_ids=ids)):
            assert (await answer(engine, prompt, red)).choices[0].token_ids == tokens, prompt.kind
        assert (await answer(engine, beside, blue)).choices[0].token_ids != tokens
        with pytest.raises(InvalidArgument, match="t most 1"):
            await answer(engine, beside, red, blue)
        with pytest.raises(InvalidArgument):
            await answer(engine, beside, MediaPart(type="image", data=b"not an image", mime_type="image/png"))
        plain = await answer(engine, TokensPrompt(token_ids=ids))
        assert plain.choices[0].token_ids != tokens
        assert engine.load().running == 0
    finally:
        await engine.stop()
