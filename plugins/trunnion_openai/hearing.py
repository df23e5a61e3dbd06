"""Write forms for the transcription API, and read what it heard."""

from __future__ import annotations

from typing import Any, Final

from trunnion.engine import Transcription
from trunnion.errors import InternalError
from trunnion.events import Usage

from .body import WireRequest
from .errors import said_within
from .wire import decode, transcript_decoder

PATH: Final = "/audio/transcriptions"
_ENDINGS: Final = {
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/mpeg": "mp3",
    "audio/flac": "flac",
    "audio/ogg": "ogg",
    "audio/mp4": "m4a",
    "audio/webm": "webm",
}
"""Endpoints tell formats by the end of the file's name."""


def audio_form(model: str, audio: bytes, mime_type: str, language: str | None) -> WireRequest:
    """Return the request for a file."""
    body: dict[str, Any] = {"model": model, "response_format": "json"}
    if language is not None:
        body["language"] = language
    name = f"audio.{_ENDINGS.get(mime_type) or mime_type.rpartition('/')[2]}"
    return WireRequest(PATH, body, stream=False, chat=False, files={"file": (name, audio, mime_type)})


def read_transcription(data: bytes, where: str) -> Transcription:
    """Return what was heard. Raises :class:`InternalError` for another answer."""
    body = decode(transcript_decoder, data, where)
    if body.text is None:
        if body.error is not None:
            raise said_within(body.error, where=where)
        raise InternalError(f"{where} answered without a text")
    used = body.usage
    tokens = (0, 0) if used is None else (used.input_tokens or 0, used.output_tokens or 0)
    return Transcription(text=body.text, usage=Usage(prompt_tokens=tokens[0], completion_tokens=tokens[1]))
