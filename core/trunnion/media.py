"""Find images, audio and video in messages, and hand them to engines in one form: OpenAI's.

A *media part* is one element of a message's ``content``::

    {"type": "image_url", "image_url": {"url": "https://..."}}      # or a data: URL with base64
    {"type": "image", "image": b"..."}                              # the file's bytes, in rows and programs
    {"type": "input_audio", "input_audio": {"data": "<base64>", "format": "wav"}}

``video_url`` and ``audio_url`` are like ``image_url``. A request lists its media once more, decoded, as
:class:`trunnion.MediaPart`; that list is what counts, and the parts in the messages are its places.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal, cast

from .errors import InvalidArgument
from .requests import ChatMessage, GenerateRequest, MediaPart, MessagesPrompt

MediaKind = Literal["image", "audio", "video"]

MEDIA_PARTS: Final[dict[str, MediaKind]] = {
    "image_url": "image",
    "image": "image",
    "audio_url": "audio",
    "input_audio": "audio",
    "video_url": "video",
}
"""What is a media part, by its ``type``, and the medium it holds."""

IMAGE_TYPES: Final = ("image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp", "image/tiff")
"""Types of images that are taken."""

_ASSUMED: Final[dict[MediaKind, str]] = {"image": "image/png", "audio": "audio/wav", "video": "video/mp4"}
_SIGNATURES: Final = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (0, b"II*\x00", "image/tiff"),
    (0, b"MM\x00*", "image/tiff"),
    (0, b"BM", "image/bmp"),
    (8, b"WAVE", "audio/wav"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"\xff\xfb", "audio/mpeg"),
    (0, b"\xff\xf3", "audio/mpeg"),
    (0, b"\xff\xf2", "audio/mpeg"),
    (0, b"fLaC", "audio/flac"),
    (0, b"OggS", "audio/ogg"),
    (4, b"ftypM4A", "audio/mp4"),
    (4, b"ftyp", "video/mp4"),
    (0, b"\x1aE\xdf\xa3", "video/webm"),
    (8, b"AVI ", "video/x-msvideo"),
)
"""Offset, bytes and type of the first bytes of files, as https://mimesniff.spec.whatwg.org has them, and TIFF's."""


def sniff(data: bytes) -> str | None:
    """Return the mime type that a file's first bytes tell, None for one that is not known."""
    for offset, signature, mime_type in _SIGNATURES:
        if data.startswith(signature, offset) and (offset != 8 or data.startswith(b"RIFF")):  # noqa: PLR2004 - RIFF's
            return mime_type
    return None


def media_parts(messages: Iterable[Any], where: str = "messages") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the media parts in order, each with its place, such as ``messages[1].content[0]``."""
    for index, message in enumerate(messages):
        content = message.get("content") if isinstance(message, Mapping) else None
        if isinstance(content, list | tuple):
            for spot, part in enumerate(content):
                if _is_media(part):
                    yield f"{where}[{index}].content[{spot}]", part


def read_media(messages: Iterable[Any], where: str = "messages") -> tuple[MediaPart, ...]:
    """Return the media of a conversation, in order.

    Raises:
        InvalidArgument: A part is not what it must be; ``param`` is its place, such as
            ``messages[1].content[0].image_url.url``.
    """
    return tuple(read_part(part, place) for place, part in media_parts(messages, where))


def read_part(part: Mapping[str, Any], place: str) -> MediaPart:
    """Return what a media part holds: data where it has data, else its URL.

    Raises:
        InvalidArgument: Data is missing, no base64 or of no known type, or the URL is none; ``param`` begins with
            ``place``.
    """
    kind = part["type"]
    held = part.get(kind)
    where = f"{place}.{kind}"
    if kind == "input_audio":
        return _audio(held, where)
    if kind == "image":
        if isinstance(held, bytes | bytearray | memoryview):
            return checked(MediaPart(type="image", data=bytes(held)), where)
    else:
        where += ".url"
        held = held.get("url") if isinstance(held, Mapping) else held
    if not isinstance(held, str) or not held:
        also = ", or the image's bytes" if kind == "image" else ""
        raise InvalidArgument(f"{where} must be an http, https or data URL{also}", param=where)
    return from_url(MEDIA_PARTS[kind], held, where)


def from_url(kind: MediaKind, url: str, where: str) -> MediaPart:
    """Return the part of a URL, a data URL decoded.

    Raises:
        InvalidArgument: ``param`` is ``where``; the scheme is another, or the data are no base64, empty or unknown.
    """
    scheme = url.partition(":")[0].lower()
    if scheme in ("http", "https"):
        return MediaPart(type=kind, url=url)
    if scheme != "data":
        raise InvalidArgument(f"{where} must be an http, https or data URL, not {url[:40]!r}", param=where)
    head, comma, data = url.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise InvalidArgument(
            f"{where}: a data URL must hold base64 data, as in data:image/png;base64,...", param=where
        )
    mime_type = head[len("data:") :].partition(";")[0].lower()
    return checked(MediaPart(type=kind, data=_decoded(data, where), mime_type=mime_type or None), where)


def checked(part: MediaPart, where: str) -> MediaPart:
    """Return a part that holds data, an image with the mime type that its bytes tell.

    Raises:
        InvalidArgument: ``param`` is ``where``; the data are empty, or no image of a known type.
    """
    if not part.data:
        raise InvalidArgument(f"{where} is empty; it must hold the {part.type}'s bytes", param=where)
    if part.type != "image":
        return part
    mime_type = sniff(part.data)
    if mime_type not in IMAGE_TYPES:
        known = ", ".join(name.removeprefix("image/") for name in IMAGE_TYPES)
        raise InvalidArgument(f"{where} is no image of a known type; there are: {known}", param=where)
    return part if part.mime_type == mime_type else replace(part, mime_type=mime_type)


def with_media(request: GenerateRequest) -> GenerateRequest:
    """Return the request with the media of its messages listed; as it is where they hold none, or it lists some.

    Raises:
        InvalidArgument: A part is not what it must be.
    """
    prompt = request.prompt
    if request.media or not isinstance(prompt, MessagesPrompt) or not isinstance(prompt.messages, list | tuple):
        return request
    for message in prompt.messages:  # of text alone: nearly always
        if type(message) is not dict or type(message.get("content")) is not str:
            break
    else:
        return request
    media = read_media(prompt.messages)
    return request.with_(media=media) if media else request


def wire_part(part: MediaPart) -> dict[str, Any]:
    """Return a part in OpenAI's wire format, bytes as a data URL. Raises :class:`InvalidArgument` for an empty one."""
    url = part.url
    if url is None:
        if part.data is None:
            raise InvalidArgument("a media part needs a url or data", param="media")
        encoded = base64.b64encode(part.data).decode("ascii")
        url = f"data:{part.mime_type or _ASSUMED[part.type]};base64,{encoded}"
    kind = f"{part.type}_url"
    return {"type": kind, kind: {"url": url}}


def wire_messages(
    messages: Sequence[Mapping[str, Any]],
    media: Sequence[MediaPart],
    write: Callable[[MediaPart], dict[str, Any]] = wire_part,
) -> list[ChatMessage]:
    """Return the messages with the media in them, each as ``write`` makes it; the messages given are not changed.

    The media stand where the messages hold parts, in order, whatever those parts say. Where they hold none, the media
    go before the text of the last user's message.

    Raises:
        InvalidArgument: The messages hold other media than the request, or none of them is a user's.
    """
    held = [MEDIA_PARTS[part["type"]] for _, part in media_parts(messages)]
    users = [index for index, message in enumerate(messages) if message.get("role") == "user"]
    if held and held != [part.type for part in media]:
        listed = ", ".join(part.type for part in media)
        raise InvalidArgument(
            f"the messages hold {len(held)} media parts ({', '.join(held)}) and the request {len(media)} ({listed}); "
            "put each in the messages, or leave all out of them: they are then added to the last user's message",
            param="media",
        )
    if media and not held and not users:
        raise InvalidArgument("there is no user message that the media could belong to", param="messages")
    made = cast("list[ChatMessage]", list(messages))
    if held:
        left = iter(media)
        for index, message in enumerate(messages):
            content = message.get("content")
            if isinstance(content, list | tuple) and any(map(_is_media, content)):
                parts = [_written(part, next(left), write) if _is_media(part) else part for part in content]
                made[index] = cast("ChatMessage", {**message, "content": parts})
    elif media:
        content = messages[users[-1]].get("content")
        text = [{"type": "text", "text": content or ""}] if isinstance(content, str | None) else list(content)
        parts = [*map(write, media), *text]
        made[users[-1]] = cast("ChatMessage", {**messages[users[-1]], "content": parts})
    return made


def _written(there: Mapping[str, Any], part: MediaPart, write: Callable[[MediaPart], dict[str, Any]]) -> dict[str, Any]:
    """Return a part with other content, its further fields (``detail``) kept; as it is where it says the same."""
    kind = there["type"]
    held = there.get(kind)
    url = held.get("url") if isinstance(held, Mapping) else held
    if kind == "input_audio":
        same = part.data is not None
    elif part.url is not None:
        same = url == part.url
    else:
        same = isinstance(url, str) and url.startswith(f"data:{part.mime_type};base64,")
    if same and kind != "image":  # which is no type of OpenAI's
        return dict(there)
    made = write(part)
    if isinstance(held, Mapping) and made["type"] == kind:
        made[kind] = {**held, **made[kind]}
    return {**{key: value for key, value in there.items() if key != kind}, **made}


def _is_media(part: object) -> bool:
    if not isinstance(part, Mapping):
        return False
    kind = part.get("type")
    return isinstance(kind, str) and kind in MEDIA_PARTS


def _audio(held: Any, where: str) -> MediaPart:
    data, kind = (held.get("data"), held.get("format")) if isinstance(held, Mapping) else (None, None)
    if not isinstance(data, str) or not isinstance(kind, str):
        raise InvalidArgument(f"{where} must hold data (base64) and format", param=where)
    part = MediaPart(type="audio", data=_decoded(data, f"{where}.data"), mime_type=f"audio/{kind}")
    return checked(part, f"{where}.data")


def _decoded(data: str, where: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidArgument(f"{where}: the data is not valid base64", param=where) from error
