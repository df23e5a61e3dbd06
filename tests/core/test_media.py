"""Media parts of messages: what is read from them, what is refused and where, and what engines get."""

import base64

import pyarrow as pa
import pytest
from media_lab import GIF, JPEG, MP4, PNG, WAV, asked, data_url, image

from trunnion import GenerateRequest, MediaPart, MessagesPrompt, TextPrompt
from trunnion.errors import InvalidArgument
from trunnion.media import read_media, sniff, wire_messages, wire_part, with_media
from trunnion.rows import RowColumns, RowOptions, row_to_request

URL = "https://example.com/a.png"


def test_every_form_is_read_in_order():
    sound = base64.b64encode(WAV).decode()
    messages = [
        *asked(image(URL), {"type": "image_url", "image_url": data_url(PNG)}, {"type": "image", "image": JPEG}),
        {"role": "tool", "content": [{"type": "image", "image": data_url(GIF)}]},
        {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": sound, "format": "wav"}}]},
        {"role": "user", "content": [{"type": "video_url", "video_url": {"url": data_url(MP4, "video/mp4")}}]},
        {"role": "user", "content": ({"type": "image", "image": bytearray(PNG)}, "text", 3, {"type": ["odd"]})},
    ]
    assert read_media(messages) == (
        MediaPart(type="image", url=URL),
        MediaPart(type="image", data=PNG, mime_type="image/png"),
        MediaPart(type="image", data=JPEG, mime_type="image/jpeg"),
        MediaPart(type="image", data=GIF, mime_type="image/gif"),
        MediaPart(type="audio", data=WAV, mime_type="audio/wav"),
        MediaPart(type="video", data=MP4, mime_type="video/mp4"),
        MediaPart(type="image", data=PNG, mime_type="image/png"),
    )
    assert read_media([{"role": "user", "content": "text"}, "no message", {"content": None}]) == ()


def test_the_bytes_say_what_an_image_is():
    (part,) = read_media(asked(image(data_url(JPEG, "image/png"))))
    assert part.mime_type == "image/jpeg"
    (part,) = read_media(asked(image(data_url(PNG, "application/octet-stream;name=x"))))
    assert part.mime_type == "image/png"


@pytest.mark.parametrize(
    ("data", "mime_type"),
    [
        (PNG, "image/png"), (JPEG, "image/jpeg"), (GIF, "image/gif"), (b"RIFF1234WEBPVP8 ", "image/webp"),
        (b"BM12", "image/bmp"), (b"II*\x00", "image/tiff"), (b"MM\x00*", "image/tiff"), (WAV, "audio/wav"),
        (MP4, "video/mp4"), (b"1234ftypM4A ", "audio/mp4"), (b"OggS", "audio/ogg"), (b"fLaC", "audio/flac"),
        (b"ID3", "audio/mpeg"), (b"\x1aE\xdf\xa3", "video/webm"), (b"", None), (b"<svg>", None), (b"%PDF-", None),
        (b"12345678WEBP", None),
    ],
)  # fmt: skip
def test_types_are_told_by_the_first_bytes(data, mime_type):
    assert sniff(data) == mime_type


PLACE = "messages[1].content[0]"
WRONG = [
    ({"type": "image_url"}, f"{PLACE}.image_url.url", "http, https or data URL"),
    ({"type": "image_url", "image_url": {"url": ""}}, f"{PLACE}.image_url.url", "http, https or data URL"),
    ({"type": "image_url", "image_url": {"url": PNG}}, f"{PLACE}.image_url.url", "http, https or data URL"),
    (image("data:image/png;base64,@@@@"), f"{PLACE}.image_url.url", "not valid base64"),
    (image("data:image/png;base64,iVBORw0"), f"{PLACE}.image_url.url", "not valid base64"),
    (image("data:image/png;base64,"), f"{PLACE}.image_url.url", "is empty"),
    (image("data:image/png,abc"), f"{PLACE}.image_url.url", "base64"),
    (image("data:image/png"), f"{PLACE}.image_url.url", "base64"),
    (image(data_url(b"<svg></svg>", "image/svg+xml")), f"{PLACE}.image_url.url", "no image of a known type"),
    (image("file:///etc/passwd"), f"{PLACE}.image_url.url", "must be an http, https or data URL"),
    (image("gopher://example.com/"), f"{PLACE}.image_url.url", "must be an http, https or data URL"),
    (image("/etc/passwd"), f"{PLACE}.image_url.url", "must be an http, https or data URL"),
    ({"type": "image"}, f"{PLACE}.image", "or the image's bytes"),
    ({"type": "image", "image": b""}, f"{PLACE}.image", "is empty"),
    ({"type": "image", "image": b"text"}, f"{PLACE}.image", "no image of a known type"),
    ({"type": "image", "image": [137, 80]}, f"{PLACE}.image", "or the image's bytes"),
    ({"type": "input_audio", "input_audio": {"data": 1, "format": "wav"}}, f"{PLACE}.input_audio", "base64"),
    ({"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}, f"{PLACE}.input_audio.data", "is empty"),
]


@pytest.mark.parametrize(("part", "place", "said"), WRONG)
def test_a_wrong_part_is_refused_by_its_place(part, place, said):
    for read in (read_media, lambda messages: row_to_request({"messages": messages})):
        with pytest.raises(InvalidArgument, match=said) as caught:
            read(asked(part))
        assert caught.value.param == place
        assert place in caught.value.message
        assert len(caught.value.message) < 300  # the data are not repeated


def test_a_request_lists_what_its_messages_hold():
    plain = GenerateRequest(prompt=MessagesPrompt(messages=[{"role": "user", "content": "x"}]))
    assert with_media(plain) is plain
    text = GenerateRequest(prompt=TextPrompt(text="x"))
    assert with_media(text) is text
    seeing = GenerateRequest(prompt=MessagesPrompt(messages=asked(image(data_url(PNG)))))
    assert with_media(seeing).media == (MediaPart(type="image", data=PNG, mime_type="image/png"),)
    assert with_media(seeing).prompt is seeing.prompt
    listed = seeing.with_(media=(MediaPart(type="image", data=GIF),))
    assert with_media(listed) is listed


def test_a_part_says_on_the_wire_what_the_request_lists():
    messages = asked(
        {"type": "image_url", "image_url": {"url": "http://elsewhere/", "detail": "low"}},
        {"type": "image", "image": PNG},
        image(data_url(PNG)),
        {"type": "image_url", "image_url": URL, "further": 1},
    )
    picture = MediaPart(type="image", data=PNG, mime_type="image/png")
    made = wire_messages(messages, [picture, picture, picture, MediaPart(type="image", url=URL)])
    assert made[0] == messages[0]
    assert made[1]["content"] == [
        {"type": "image_url", "image_url": {"url": data_url(PNG), "detail": "low"}},
        image(data_url(PNG)),
        image(data_url(PNG)),
        {"type": "image_url", "image_url": URL, "further": 1},
        {"type": "text", "text": "what is this?"},
    ]
    assert messages[1]["content"][0]["image_url"]["url"] == "http://elsewhere/"


def test_media_beside_messages_go_before_the_last_users_text():
    picture = MediaPart(type="image", url=URL)
    messages = [{"role": "user", "content": "first"}, {"role": "user", "content": "last"}, {"role": "assistant"}]
    made = wire_messages(messages, [picture], lambda part: {"made of": part.url})
    assert made[1]["content"] == [{"made of": URL}, {"type": "text", "text": "last"}]
    assert made[0] is messages[0]
    assert wire_messages(messages, []) == messages


@pytest.mark.parametrize(
    ("messages", "media", "param"),
    [
        (asked(image(URL)), ["image", "image"], "media"),
        (asked(image(URL)), ["video"], "media"),
        (asked(image(URL), image(URL)), ["image"], "media"),
        ([{"role": "assistant", "content": "x"}], ["image"], "messages"),
    ],
)
def test_media_that_do_not_fit_the_messages_are_refused(messages, media, param):
    with pytest.raises(InvalidArgument) as caught:
        wire_messages(messages, [MediaPart(type=kind, url=URL) for kind in media])
    assert caught.value.param == param


def test_a_part_without_anything_is_refused():
    with pytest.raises(InvalidArgument, match="url or data"):
        wire_part(MediaPart(type="image"))


def test_a_row_holds_images_as_arrow_has_them():
    given = [[asked(part)[1]] for part in ({"type": "image", "image": PNG}, image(URL), image(data_url(GIF)))]
    table = pa.Table.from_pylist([{"messages": messages} for messages in given])
    assert "binary" in str(table.schema)
    requests = [row_to_request(row) for row in table.to_pylist()]
    assert [request.media for request in requests] == [
        (MediaPart(type="image", data=PNG, mime_type="image/png"),),
        (MediaPart(type="image", url=URL),),
        (MediaPart(type="image", data=GIF, mime_type="image/gif"),),
    ]
    # None of the nulls that Arrow fills the parts with is left.
    assert [request.prompt.messages for request in requests] == given


def test_a_row_may_hold_its_messages_as_json_text_under_another_name():
    import json

    options = RowOptions(columns=RowColumns(messages="chat"))
    made = row_to_request({"chat": json.dumps(asked(image(data_url(PNG))))}, options)
    assert made.media[0].data == PNG
    with pytest.raises(InvalidArgument) as caught:
        row_to_request({"chat": asked(image("ftp://x/"))}, options)
    assert caught.value.param == "chat[1].content[0].image_url.url"


def test_rows_without_media_have_none():
    assert row_to_request({"messages": [{"role": "user", "content": "x"}]}).media == ()
    assert row_to_request({"messages": asked()}).media == ()
    assert row_to_request({"prompt": "x"}).media == ()
