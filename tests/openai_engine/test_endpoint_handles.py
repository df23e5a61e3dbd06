"""Rows for a deployment, against a handle that is scripted: what each row must hold, and how failures are told."""

import asyncio

import pytest
from pydantic import BaseModel

from trunnion.errors import DeadlineExceeded, InternalError, InvalidArgument, Overloaded, TrunnionError
from trunnion_ray.data.serve_rows import HandleCaller


class Request(BaseModel):
    request_id: str
    number: int


class Stream:
    """Stand in for Serve's response of a generator, or of a plain method."""

    def __init__(self, answer):
        self.answer, self.cancelled = answer, False

    async def __aiter__(self):
        yield await self._get()

    def __await__(self):
        return self._get().__await__()

    async def _get(self):
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer == "hang":
            await asyncio.sleep(60)
        return self.answer

    def cancel(self):
        self.cancelled = True


class Handle:
    def __init__(self, answer):
        self.answer, self.asked, self.streams = answer, [], []

    @property
    def chat(self):
        return self

    def remote(self, request):
        self.asked.append(request)
        self.streams.append(Stream(self.answer(request) if callable(self.answer) else self.answer))
        return self.streams[-1]


def caller(answer, plain=None, **fields):
    made = HandleCaller("d", app="a", **{"dtypes": {"Request": Request}, "timeout": None, **fields})
    made._streaming, made._handle = Handle(answer), Handle(plain)
    return made


def row(**fields):
    return {"method": "chat", "request_kwargs": {"number": 1}, **fields}


async def test_the_request_and_the_answer():
    made = caller({"text": "x"})
    answer = await made.call(row())
    (asked,) = made._streaming.asked
    assert asked == {"number": 1, "request_id": answer["request_id"]}
    assert answer["text"] == "x"
    assert (await made.call(row(request_kwargs={"request_id": "mine"})))["request_id"] == "mine"


async def test_an_object_of_a_class_goes_and_comes():
    made = caller(lambda request: request)
    answer = await made.call(row(dtype="Request"))
    assert isinstance(made._streaming.asked[0], Request)
    assert answer["number"] == 1


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"method": None}, "method"),
        ({"method": "__init__"}, "method"),
        ({"request_kwargs": None}, "request_kwargs"),
        ({"dtype": "Other"}, "dtype"),
        ({"dtype": "Request", "request_kwargs": {"number": "many"}}, "request_kwargs"),
    ],
)
async def test_rows_that_ask_for_nothing_sensible(fields, param):
    made = caller({})
    with pytest.raises(InvalidArgument) as caught:
        await made.call(row(**fields))
    assert caught.value.param == param
    assert made._streaming.asked == []


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ({"error": {"message": "no", "type": "invalid_request_error", "param": "seed"}}, InvalidArgument),
        ({"error": {"message": "no"}}, InternalError),
        ("text", InternalError),
        (Overloaded("full"), Overloaded),
        (RuntimeError("x"), InternalError),
    ],
)
async def test_answers_that_are_failures(answer, kind):
    with pytest.raises(TrunnionError) as caught:
        await caller(answer).call(row())
    assert type(caught.value) is kind


async def test_a_call_that_takes_too_long():
    made = caller("hang", timeout=0.05)
    with pytest.raises(DeadlineExceeded) as caught:
        await made.call(row())
    assert caught.value.param == "request_timeout_s"
    assert made._streaming.streams[0].cancelled


async def test_a_method_that_is_no_generator_is_found_out_once():
    made = caller(TypeError("must be a generator"), plain={"text": "x"})
    for _ in range(3):
        assert (await made.call(row()))["text"] == "x"
    assert (len(made._streaming.asked), len(made._handle.asked)) == (1, 3)
