"""What must hold of a service, whoever runs it: in this process, or Ray Serve."""

import openai
import pytest

BOB, TEL = "bob@example.com", "+1 650 253 0000"
TEXT = f"Write to {BOB} or call {TEL} about {BOB}"
MESSAGES = [{"role": "user", "content": TEXT}]
ECHO = f"user: {TEXT}"


def check(url):
    """Ask a model called "m", whose engine refuses prompts that hold an address of example.com."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        _whole(client)
        _streamed(client)
        _refused(client)


def _whole(client):
    made = client.chat.completions.create(model="m", messages=MESSAGES, n=2)
    assert [choice.message.content.strip() for choice in made.choices] == [ECHO] * 2
    assert client.completions.create(model="m", prompt=TEXT).choices[0].text.strip() == TEXT


def _streamed(client):
    texts = {0: "", 1: ""}
    chunks = list(client.chat.completions.create(model="m", messages=MESSAGES, n=2, stream=True))
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert len(chunks) > len(ECHO.split()), "the answer did not come in pieces"
    assert {text.strip() for text in texts.values()} == {ECHO}


def _refused(client):
    with pytest.raises(openai.BadRequestError, match="token ids cannot be searched"):
        client.completions.create(model="m", prompt=[1, 2, 3])
