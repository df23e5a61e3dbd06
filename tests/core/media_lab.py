"""Pictures of a few bytes, and a scripted HTTP server that media are fetched from."""

import asyncio
import base64
import contextlib

PNG = b"\x89PNG\r\n\x1a\n" + b"picture"
JPEG = b"\xff\xd8\xff\xe0" + b"picture"
GIF = b"GIF89a" + b"picture"
WAV = b"RIFF\x10\x00\x00\x00WAVE" + b"sound"
MP4 = b"\x00\x00\x00\x18ftypmp42" + b"film"


def data_url(data, mime_type="image/png"):
    return f"data:{mime_type};base64,{base64.b64encode(data).decode()}"


def image(url):
    return {"type": "image_url", "image_url": {"url": url}}


def asked(*parts, text="what is this?"):
    """Return a conversation whose last message holds these parts."""
    return [
        {"role": "system", "content": "You see."},
        {"role": "user", "content": [*parts, {"type": "text", "text": text}]},
    ]


def answer(body, *headers, status="200 OK", length=True):
    """Return a response as it is on the wire."""
    lines = [f"HTTP/1.1 {status}", *headers]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


class MediaServer:
    """Answer each path with the bytes, or the coroutine function of a writer, that it is given."""

    def __init__(self):
        self.paths = {}
        self.asked = []
        self.now = self.most = 0

    async def _serve(self, reader, writer):
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.asked.append(head)
            script = self.paths[head.split(" ")[1]]
            if callable(script):
                await script(writer)
            else:
                writer.write(script)
                await writer.drain()
        finally:
            self.now -= 1
            writer.close()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def host(self):
        return f"127.0.0.1:{self.port}"

    def add(self, path, script):
        self.paths[path] = script
        return f"{self.url}{path}"


@contextlib.asynccontextmanager
async def media_server():
    served = MediaServer()
    server = await asyncio.start_server(served._serve, "127.0.0.1", 0)
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        server.close()
