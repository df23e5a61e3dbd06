"""What is found in text, and what is not."""

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trunnion.errors import ConfigError

from trunnion_redact import RedactConfig
from trunnion_redact.find import Finder


def found(text, **settings):
    return [text[one.start : one.end] for one in Finder(RedactConfig(**settings)).find(text)]


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("Write to bob@example.com.", ["bob@example.com"]),
        ("mailto:bob@example.com?subject=x", ["bob@example.com"]),
        ("<bob.smith+news@mail.example.co.uk>, (o'brien@example.ie)", [
            "bob.smith+news@mail.example.co.uk", "o'brien@example.ie",
        ]),
        ("'bob@example.com' or \"al@example.org\"", ["bob@example.com", "al@example.org"]),
        ("user=bob@example.com&x=1", ["bob@example.com"]),
        ("rené@exämple.de и иван@пример.рф", ["rené@exämple.de", "иван@пример.рф"]),
        ("x@xn--exmple-cua.xn--p1ai", ["x@xn--exmple-cua.xn--p1ai"]),
        ("root@[192.0.2.1] and me@localhost", ["root@[192.0.2.1]"]),
        ("npm i left-pad@1.3.0 @types/node a @ b.de @home", []),
        ("a@b@example.com", ["b@example.com"]),
    ],
)  # fmt: skip
def test_addresses(text, addresses):
    assert found(text, kinds=["email"]) == addresses


@pytest.mark.parametrize(
    ("text", "region", "numbers"),
    [
        ("Call +1 (650) 253-0000 or +49 30 901820.", None, ["+1 (650) 253-0000", "+49 30 901820"]),
        ("tel:+14155552671", None, ["+14155552671"]),
        ("Call 415-555-2671 or (650) 253-0000", "US", ["415-555-2671", "(650) 253-0000"]),
        ("Call 415-555-2671", None, []),
        ("Ruf 030 901820 an", "DE", ["030 901820"]),
        ("on 2024-01-15 pi was 3.14159, id 1234567890123456, ip 192.168.10.12", "US", []),
    ],
)
def test_numbers(text, region, numbers):
    assert found(text, kinds=["phone"], default_region=region) == numbers


def test_kinds_choose():
    text = "bob@example.com, +1 650 253 0000"
    assert found(text) == ["bob@example.com", "+1 650 253 0000"]
    assert found(text, kinds=["email"]) == ["bob@example.com"]
    assert found(text, kinds=["phone"]) == ["+1 650 253 0000"]
    assert found(text, kinds=[]) == []


def test_digits_of_an_address_are_no_number():
    assert found("+16502530000@example.com") == ["+16502530000@example.com"]
    assert found("16502530000@example.com", kinds=["phone"], default_region="US") == []


@pytest.mark.parametrize(
    ("allow", "left"),
    [
        ("Bob@Example.com", ["al@example.com", "+1 650 253 0000", "cy@sub.example.com"]),
        ("@EXAMPLE.com", ["+1 650 253 0000", "cy@sub.example.com"]),
        ("+1 (650) 253-0000", ["bob@example.com", "al@example.com", "cy@sub.example.com"]),
    ],
)
def test_what_is_allowed_passes(allow, left):
    text = "bob@example.com al@example.com +1 650 253 0000 cy@sub.example.com"
    assert found(text, allow=[allow]) == sorted(left, key=text.index)


@pytest.mark.parametrize(
    ("settings", "param"),
    [({"default_region": "XX"}, "default_region"), ({"allow": ["650 253"]}, "allow"), ({"allow": ["bob"]}, "allow")],
)
def test_wrong_settings_are_named(settings, param):
    with pytest.raises(ConfigError) as caught:
        Finder(RedactConfig(**settings))
    assert caught.value.param == param


@given(st.text(alphabet="ab@.-_'+1 (<>é", max_size=60))
def test_finds_never_overlap(text):
    finds = Finder(RedactConfig(default_region="US")).find(text)
    assert all(before.end <= after.start for before, after in itertools.pairwise(finds))


@pytest.mark.parametrize(
    "text", ["a" * 200_000, "a'" * 100_000, "a@" * 100_000, "a@" + "b." * 100_000, "a@b." + "c_" * 90_000]
)
def test_hostile_text_takes_linear_time(text):
    began = time.process_time()
    found(text, kinds=["email"])
    assert time.process_time() - began < 20  # quadratic time would be an hour


def test_the_last_number_of_many_is_found():
    text = "1-2 " * 70_000 + "+16502530000"
    assert found(text, kinds=["phone"]) == ["+16502530000"]
