"""Describe the forms that routes take. Kept by hand; a test holds them to what is answered."""

from __future__ import annotations

from typing import Final

from trunnion_http.transcription import FIELDS, LANGUAGE

from .answers import STRING, Schema, const

_PROPERTIES: Final[dict[str, Schema]] = {
    "file": {"type": "string", "format": "binary", "description": "wav, mp3, flac, ogg, m4a, mp4 or webm"},
    "model": STRING,
    "language": {"type": "string", "pattern": f"^{LANGUAGE}$", "description": "ISO 639-1 code"},
    "response_format": {"enum": ["json", "text"], "default": "json"},
    "prompt": const(""),
    "temperature": {"const": 0},
    "stream": {"const": False},
}
AUDIO_FORM: Final[Schema] = {
    "type": "object",
    "required": ["file"],
    "properties": {name: _PROPERTIES[name] for name in FIELDS},
    "additionalProperties": False,
}
"""What ``/v1/audio/transcriptions`` takes."""
