"""Let a request's media through to the engine: checked, and fetched here unless something else is to fetch them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from .errors import DeadlineExceeded, InvalidArgument
from .media import checked, from_url, media_parts, sniff, wire_messages
from .media_policy import MediaPolicy
from .requests import GenerateRequest, MediaPart, MessagesPrompt

if TYPE_CHECKING:
    from .media_fetch import MediaFetcher


class MediaGate:
    """Hold one pipeline to a policy. Belongs to one event loop."""

    def __init__(self, policy: MediaPolicy, *, takes_urls: bool) -> None:
        """Take the policy, and whether the engine's media are fetched by someone else (``Capabilities.media_urls``)."""
        self._policy = policy
        self._takes_urls = takes_urls
        self._fetcher: MediaFetcher | None = None

    async def admit(self, request: GenerateRequest) -> GenerateRequest:
        """Return the request with media as the engine takes them: data alone, or URLs as well where it says so.

        The parts in its messages are in OpenAI's wire format and say the same.

        Raises:
            UnsupportedFeature: Media are given by URL, and nothing is fetched here.
            InvalidArgument: A medium is empty, too large, of no known type, or cannot be had; ``param`` is its place.
            DeadlineExceeded: The request's time is up.
        """
        prompt, places = request.prompt, []
        if isinstance(prompt, MessagesPrompt):
            # Where the messages hold none, or others, the engine's plugin says so.
            places = [f"{place}.{_field(part)}" for place, part in media_parts(prompt.messages)]
        if len(places) != len(request.media):
            places = []
        where = places or [f"media[{index}].{_own(part)}" for index, part in enumerate(request.media)]
        media = [self._checked(part, place) for part, place in zip(request.media, where, strict=True)]
        wanted = [index for index, part in enumerate(media) if part.url is not None]
        if wanted and not self._takes_urls:
            fetched = await self._fetched({index: (media[index], where[index]) for index in wanted}, request.deadline)
            for index, part in fetched.items():
                media[index] = part
        changed = request.with_(media=tuple(media))
        if places and isinstance(prompt, MessagesPrompt):
            return changed.with_(prompt=replace(prompt, messages=wire_messages(prompt.messages, media)))
        return changed

    def _checked(self, part: MediaPart, where: str) -> MediaPart:
        if (part.url is None) == (part.data is None):
            raise InvalidArgument(f"{where}: a media part needs a url or data, and not both", param=where)
        part = checked(part, where) if part.url is None else from_url(part.type, part.url, where)
        if part.data is not None:
            self._check_size(part.data, where)
        return part

    def _check_size(self, data: bytes, where: str) -> None:
        most = self._policy.max_bytes
        if len(data) > most:
            raise InvalidArgument(f"{where} has {len(data)} bytes; the media settings allow {most}", param=where)

    async def _fetched(self, parts: dict[int, tuple[MediaPart, str]], deadline: float | None) -> dict[int, MediaPart]:
        """Fetch side by side; the first failure gives the others up."""
        most = self._policy.max_urls
        if len(parts) > most and self._policy.allowed_hosts:
            raise InvalidArgument(f"{len(parts)} media are to be fetched, at most {most} in one request", param="media")
        tasks = {index: asyncio.ensure_future(self._fetch(*item)) for index, item in parts.items()}
        try:
            async with asyncio.timeout(None if deadline is None else deadline - time.time()):
                await asyncio.gather(*tasks.values())
        except TimeoutError as error:
            raise DeadlineExceeded("the deadline passed while media were fetched", param="deadline") from error
        finally:
            for task in tasks.values():
                task.cancel()
        return {index: task.result() for index, task in tasks.items()}

    async def _fetch(self, part: MediaPart, where: str) -> MediaPart:
        if self._fetcher is None:
            from .media_fetch import MediaFetcher

            self._fetcher = MediaFetcher(self._policy)
        assert part.url is not None
        data = await self._fetcher.fetch(part.url, where)
        # What the server calls it does not count.
        found = checked(MediaPart(type=part.type, data=data, mime_type=sniff(data)), where)
        if found.mime_type is None or not found.mime_type.startswith(f"{part.type}/"):
            raise InvalidArgument(f"{where}: what is there is no {part.type} of a known type", param=where)
        return found


def _field(part: object) -> str:
    kind: str = part["type"]  # type: ignore[index]
    return {"image": kind, "input_audio": f"{kind}.data"}.get(kind, f"{kind}.url")


def _own(part: MediaPart) -> str:
    return "data" if part.url is None else "url"
