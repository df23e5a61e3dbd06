"""Answer ``POST /v1/audio/transcriptions``, as OpenAI's API does."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from trunnion.engine import Transcription
from trunnion.errors import DeadlineExceeded, InvalidArgument, UnsupportedFeature
from trunnion.events import Usage
from trunnion.media import sniff

from .call import Call
from .generation import time_limit
from .multipart import Form, FormShape, form_boundary
from .wire import encode

if TYPE_CHECKING:
    from .app import App

TRANSCRIPTIONS: Final = "/v1/audio/transcriptions"
FIELDS: Final = ("file", "model", "language", "response_format", "prompt", "temperature", "stream")
REFUSED: Final = {
    "timestamp_granularities": "engines return text without times; leave it out",
    "include": "engines return text without log probabilities; leave it out",
    "chunking_strategy": "files go to the engine whole; leave it out, and send long ones in parts",
    "known_speaker_names": "engines tell no speakers apart; leave it out",
    "known_speaker_references": "engines tell no speakers apart; leave it out",
}
"""Fields of OpenAI's that no engine can honour."""
_LONGEST: Final = 4096
_TIMED: Final = ("verbose_json", "srt", "vtt", "diarized_json")
_NEUTRAL: Final = {
    "prompt": (re.compile(r""), "engines take no hints in words; leave it out"),
    "temperature": (re.compile(r"[+-]?0*(\.0*)?"), "engines have a temperature of their own; leave it out, or send 0"),
    "stream": (re.compile(r"(false|0)?", re.IGNORECASE), "the text comes whole; leave it out, or send false"),
}
"""Fields that are taken with the value that asks for nothing."""
LANGUAGE: Final = r"[a-z]{2,3}"
_AUDIO: Final = {
    "audio/wav": "audio/wav",
    "audio/mpeg": "audio/mpeg",
    "audio/flac": "audio/flac",
    "audio/ogg": "audio/ogg",
    "audio/mp4": "audio/mp4",
    "video/mp4": "audio/mp4",
    "video/webm": "audio/webm",
}
"""What files are by their first bytes, and what engines are told. An mp4 or webm may hold sound alone."""
_DOCTYPE_WITHIN: Final = 4096
_WEBM: Final = "video/webm"


@runtime_checkable
class Transcribing(Protocol):
    """Transcribe audio: what a model handle may offer beside the methods of every one."""

    @property
    def name(self) -> str:
        """Return the name clients send as ``model``."""
        ...

    async def transcribe(self, audio: bytes, *, mime_type: str, language: str | None = None) -> Transcription:
        """Return what is spoken. Raises :class:`UnsupportedFeature` if the model transcribes nothing."""
        ...


async def transcriptions(app: App, call: Call) -> None:
    """Read the form, transcribe its file, answer with the text."""
    form = Form(_boundary(call), FormShape(fields=FIELDS, longest=_LONGEST, refused=REFUSED))
    form.feed(await call.body(app.settings))
    form.named()
    fields, audio = form.fields, form.take()
    handle = _transcribing(app, call, fields.get("model") or None)
    plain = _as_text(fields)
    language = _language(fields)
    mime_type = audio_type(audio)
    seconds = time_limit(call, app.settings)
    app.ids(call, None)
    call.watch(app.watch)
    try:
        async with asyncio.timeout(seconds) as timer:
            found = await handle.transcribe(audio, mime_type=mime_type, language=language)
    except TimeoutError as error:
        if not timer.expired():
            raise
        raise DeadlineExceeded(f"the audio was not transcribed within {seconds:g} s") from error
    call.usage = found.usage
    if plain:
        text = found.text.encode("utf-8", "replace")
        await call.answer(text, content_type=b"text/plain; charset=utf-8")
    else:
        await call.answer(encode({"text": found.text, **_usage(found.usage)}))


def named_model(call: Call, body: bytes) -> str | None:
    """Return the model that a form names; None if it names none. Raises :class:`InvalidArgument` if it is no form."""
    form = Form(_boundary(call), FormShape(fields=("model",), longest=_LONGEST, others=True))
    form.feed(body)
    form.check_whole()
    return form.fields.get("model") or None


def audio_type(audio: bytes) -> str:
    """Return the mime type of an audio file, by its content. Raises :class:`InvalidArgument` if it is none."""
    if not audio:
        raise InvalidArgument("file is empty", param="file")
    found = sniff(audio)
    kind = _AUDIO.get(found or "")
    if kind is None or (found == _WEBM and b"webm" not in audio[:_DOCTYPE_WITHIN]):
        what = f"it is {found}" if found is not None and kind is None else "its first bytes are those of nothing known"
        msg = f"file is no audio that is taken here: {what}; send wav, mp3, flac, ogg, m4a, mp4 or webm"
        raise InvalidArgument(msg, param="file")
    return kind


def _boundary(call: Call) -> bytes:
    boundary = form_boundary(call.headers.get(b"content-type", b""))
    if boundary is None:
        raise InvalidArgument("send a form: `Content-Type: multipart/form-data; boundary=...` with file and model")
    return boundary


def _transcribing(app: App, call: Call, name: str | None) -> Transcribing:
    handle = app.find_base(call, name, "cannot transcribe")
    if not isinstance(handle, Transcribing):
        raise UnsupportedFeature(f"the model {handle.name!r} transcribes no audio here", param="model")
    return handle


def _as_text(fields: dict[str, str]) -> bool:
    """Tell whether the answer is bare text. Raises for what the form asks for and cannot have."""
    for name, (neutral, why) in _NEUTRAL.items():
        if name in fields and not neutral.fullmatch(fields[name].strip()):
            raise UnsupportedFeature(f"{name}: {why}", param=name)
    wanted = fields.get("response_format", "json")
    if wanted in _TIMED:
        msg = f"response_format {wanted!r} has times, and engines return text without them; ask for 'json' or 'text'"
        raise UnsupportedFeature(msg, param="response_format")
    if wanted not in {"json", "text"}:
        msg = f"response_format must be 'json' or 'text', not {wanted[:40]!r}"
        raise InvalidArgument(msg, param="response_format")
    return wanted == "text"


def _language(fields: dict[str, str]) -> str | None:
    language = fields.get("language") or None
    if language is not None and not re.fullmatch(LANGUAGE, language):
        msg = f"language must be an ISO 639 code in lower case, such as 'en', not {language[:40]!r}"
        raise InvalidArgument(msg, param="language")
    return language


def _usage(usage: Usage) -> dict[str, Any]:
    """Return the usage field; none where nothing was counted."""
    if not usage.prompt_tokens and not usage.completion_tokens:
        return {}
    told = {"input_tokens": usage.prompt_tokens, "output_tokens": usage.completion_tokens}
    return {"usage": {"type": "tokens", **told, "total_tokens": sum(told.values())}}
