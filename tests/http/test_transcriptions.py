"""Transcriptions over HTTP: OpenAI's own client against the simulated engine, and forms that are none."""

import io
import socket
import time
import wave
from contextlib import asynccontextmanager

import httpx
import openai
import pytest
from http_fakes import FakeModel, RunningServer
from openai.types.audio import Transcription
from strict_types import every

import trunnion
from trunnion_http import HTTPSettings, ModelDirectory, PipelineModel, create_app

PATH = "/v1/audio/transcriptions"
LIMIT = 100_000


def tone(seconds=1.0, sample=b"\x10\x20"):
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(sample * int(16_000 * seconds))
    return made.getvalue()


WAV = tone()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Serve a simulated engine, one that hangs on a marker with one slot, one that hears nothing, and a fake."""
    directory = ModelDirectory([FakeModel("fake")])
    slow = {"max_num_seqs": 1, "fault": "hang", "fault_marker": "linger", "fault_after": 0}

    @asynccontextmanager
    async def lifespan():
        able = trunnion.engine_spec("sim", "sim", {"adapters": ["loud"], "max_model_len": 60})
        hanging = trunnion.engine_spec("sim", "sim", slow)
        unable = trunnion.engine_spec("sim", "sim", {"unsupported": ["transcribes/1"]})
        async with (
            trunnion.open_pipeline(able) as one,
            trunnion.open_pipeline(hanging) as two,
            trunnion.open_pipeline(unable) as three,
        ):
            for name, pipeline in (("sim", one), ("hanging", two), ("deaf", three)):
                directory.add(PipelineModel(name, pipeline))
            yield

    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text("secret")
    settings = HTTPSettings(max_body_bytes=LIMIT, api_keys_file=str(keys), body_timeout=5, log_requests=True)
    app = create_app(directory, settings, lifespan=lifespan)
    with RunningServer(app) as server:
        yield server


@pytest.fixture(scope="module")
def web(served):
    with httpx.Client(base_url=served.url, timeout=20, headers={"x-api-key": "secret"}) as client:
        yield client


@pytest.fixture(scope="module")
def api(served):
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="secret", max_retries=0, timeout=20) as made:
        yield made.audio.transcriptions


def send(web, audio=WAV, headers=None, **fields):
    return web.post(PATH, data={"model": "sim", **fields}, files={"file": ("a.wav", audio)}, headers=headers)


def refused(response, status=400):
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def test_openais_client_gets_openais_type(api):
    made = api.create(model="sim", file=("a.wav", WAV), language="en")
    assert isinstance(made, Transcription)
    for part in every(made):
        type(part).model_validate(part.to_dict(), strict=True)
    assert made.text
    assert made.usage.type == "tokens"
    assert made.usage.input_tokens == -(-len(WAV) // 1280)
    assert made.usage.output_tokens == len(made.text.split())
    assert made.usage.total_tokens == made.usage.input_tokens + made.usage.output_tokens


async def test_the_asynchronous_client(served, api):
    async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="secret", max_retries=0) as client:
        made = await client.audio.transcriptions.create(model="sim", file=("a.wav", WAV))
    assert made == api.create(model="sim", file=io.BytesIO(WAV))


def test_the_text_follows_from_bytes_and_language(api):
    def text(audio=WAV, **fields):
        return api.create(model="sim", file=("a.wav", audio), **fields).text

    assert text() == text()
    assert len({text(), text(tone(sample=b"\x11\x20")), text(language="en"), text(language="de")}) == 4
    assert len(text(tone(2.0)).split()) > len(text().split())


def test_text_alone(web, api):
    assert (
        api.create(model="sim", file=("a.wav", WAV), response_format="text")
        == api.create(model="sim", file=("a.wav", WAV)).text
    )
    response = send(web, response_format="text")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"


def test_values_that_ask_for_nothing_are_taken(web):
    plain = send(web).json()
    assert send(web, prompt="", temperature="0.0", stream="False", language="", response_format="json").json() == plain


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"response_format": "verbose_json"}, "response_format", "'json' or 'text'"),
        ({"response_format": "srt"}, "response_format", "without them"),
        ({"response_format": "vtt"}, "response_format", "without them"),
        ({"response_format": "diarized_json"}, "response_format", "without them"),
        ({"response_format": "yaml"}, "response_format", "must be"),
        ({"prompt": "Trunnion"}, "prompt", "no hints"),
        ({"temperature": "0.5"}, "temperature", "send 0"),
        ({"temperature": "hot"}, "temperature", "send 0"),
        ({"stream": "true"}, "stream", "whole"),
        ({"timestamp_granularities[]": ["word", "segment"]}, "timestamp_granularities[]", "without times"),
        ({"include[]": "logprobs"}, "include[]", "log probabilities"),
        ({"chunking_strategy[type]": "server_vad"}, "chunking_strategy[type]", "whole"),
        ({"known_speaker_names[]": "Ann"}, "known_speaker_names[]", "no speakers"),
        ({"language": "English"}, "language", "'en'"),
        ({"langage": "en"}, "langage", "did you mean 'language'?"),
        ({"colour": "red"}, "colour", "known: file, model"),
        ({"language": "e" * 5000}, "language", "longer than"),
    ],
)
def test_fields_that_cannot_be_honoured_are_named(web, fields, param, says):
    error = refused(send(web, **fields))
    assert error["param"] == param
    assert says in error["message"]
    assert error["type"] == "invalid_request_error"


def box(kind):
    return b"\x00\x00\x00\x18ftyp" + kind + b"\x00" * 40


@pytest.mark.parametrize(
    "audio",
    [WAV, b"ID3\x04" + b"\0" * 60, b"\xff\xfb\x90\x64" + b"\0" * 60, b"fLaC" + b"\0" * 60, b"OggS" + b"\0" * 60,
     box(b"M4A "), box(b"isom"), b"\x1aE\xdf\xa3\x01\0\0\0\x42\x82\x84webm" + b"\0" * 60],
    ids=["wav", "mp3", "mp3-bare", "flac", "ogg", "m4a", "mp4", "webm"],
)  # fmt: skip
def test_every_kind_of_audio_is_taken(web, audio):
    response = web.post(PATH, data={"model": "sim"}, files={"file": ("no-ending", audio, "text/plain")})
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    ("audio", "says"),
    [(b"", "empty"), (b"Hello, this is text", "nothing known"), (b"\x89PNG\r\n\x1a\n" + b"\0" * 9, "image/png"),
     (b"RIFF\0\0\0\0AVI " + b"\0" * 9, "video/x-msvideo"), (b"\x1aE\xdf\xa3\x42\x82\x88matroska", "nothing known"),
     (b"{}", "nothing known"), (b"\0", "nothing known")],
)  # fmt: skip
def test_what_is_no_audio_is_refused_by_its_content(web, audio, says):
    error = refused(web.post(PATH, data={"model": "sim"}, files={"file": ("a.wav", audio, "audio/wav")}))
    assert error["param"] == "file"
    assert says in error["message"]


def part(name, value, filename=None):
    also = "" if filename is None else f'; filename="{filename}"'
    return f'--XX\r\nContent-Disposition: form-data; name="{name}"{also}\r\n\r\n'.encode() + value + b"\r\n"


END = b"--XX--\r\n"
FILE, MODEL = part("file", WAV, "a.wav"), part("model", b"sim")
FORM = "multipart/form-data; boundary=XX"


@pytest.mark.parametrize(
    ("body", "kind", "param"),
    [
        (FILE + MODEL + END, "multipart/form-data", None),
        (FILE + MODEL + END, None, None),
        (FILE + MODEL + END, "multipart/form-data; boundary=" + "x" * 300, None),
        (b'{"model": "sim"}', "application/json", None),
        (b"model=sim", "application/x-www-form-urlencoded", None),
        (b"", FORM, None),
        (b"no form at all", FORM, None),
        (FILE + MODEL, FORM, None),
        (MODEL + FILE[:-100], FORM, None),
        (MODEL + END, FORM, "file"),
        (part("file", WAV) + MODEL + END, FORM, "file"),
        (FILE + FILE + MODEL + END, FORM, "file"),
        (FILE + MODEL + MODEL + END, FORM, "model"),
        (b"--XX\r\nContent-Disposition: attachment\r\n\r\nx\r\n" + END, FORM, None),
        (b"--XX\r\n\r\nx\r\n" + END, FORM, None),
    ],
)
def test_forms_that_are_none(web, body, kind, param):
    headers = {} if kind is None else {"content-type": kind}
    assert refused(web.post(PATH, content=body, headers=headers))["param"] == param


def test_the_order_of_the_fields_is_free_and_text_may_surround_the_form(web):
    made = web.post(PATH, content=MODEL + FILE + END + b"and more", headers={"content-type": FORM})
    assert made.json() == send(web).json()


def test_too_large_a_body_is_told_before_and_while_it_comes(web):
    assert refused(send(web, tone(4.0)), 413)["code"] == "request_too_large"

    def pieces():
        yield MODEL + FILE[:-2]
        for _ in range(20):
            yield b"\0" * 10_000
        yield b"\r\n" + END

    assert refused(web.post(PATH, content=pieces(), headers={"content-type": FORM}), 413)["code"] == "request_too_large"


def test_models_that_are_not_there_or_cannot(web):
    without = web.post(PATH, files={"file": ("a.wav", WAV)})
    error = refused(without, 404)
    assert error["param"] == "model"
    assert "sim, loud, hanging, deaf" in error["message"]
    assert refused(send(web, model="nobody"), 404)["code"] == "model_not_found"
    for name, why in (("deaf", "transcribes no audio"), ("fake", "transcribes no audio"), ("loud", "adapter 'loud'")):
        error = refused(send(web, model=name))
        assert (error["code"], error["param"]) == ("unsupported_feature", "model")
        assert why in error["message"]


def test_audio_that_does_not_fit(web):
    assert refused(send(web, tone(3.0)))["code"] == "context_length_exceeded"


def test_keys_and_methods_are_as_everywhere(served, web):
    error = refused(httpx.post(served.url + PATH, files={"file": ("a.wav", WAV)}), 401)
    assert error["type"] == "authentication_error"
    assert web.get(PATH).status_code == 405


def running(served):
    return served.app.models.resolve("hanging")[0].load().running


def until(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


LINGER = WAV + b"linger"


def test_a_deadline_ends_it_and_frees_the_slot(served, web):
    error = refused(send(web, LINGER, model="hanging", headers={"X-Request-Timeout": "0.3"}), 504)
    assert error["type"] == "timeout_error"
    until(lambda: running(served) == 0)
    assert send(web, model="hanging").status_code == 200
    assert refused(send(web, headers={"X-Request-Timeout": "soon"}))["param"] == "X-Request-Timeout"


def test_a_hang_up_frees_the_slot(served):
    body = part("file", LINGER, "a.wav") + part("model", b"hanging") + END
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: x\r\nx-api-key: secret\r\nContent-Type: {FORM}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + body)
        until(lambda: running(served) == 1)
    until(lambda: running(served) == 0)


def test_it_is_counted_and_logged(web, caplog):
    with caplog.at_level("INFO", logger="trunnion.http.requests"):
        send(web)
        until(lambda: any(one.name == "trunnion.http.requests" for one in caplog.records))  # after the answer
    told = next(one.request for one in caplog.records if one.name == "trunnion.http.requests")
    assert (told["path"], told["model"], told["status"]) == (PATH, "sim", 200)
    assert (told["input_tokens"], told["output_tokens"]) == (-(-len(WAV) // 1280), 2)
    until(lambda: f'endpoint="{PATH}"' in web.get("/metrics").text)
