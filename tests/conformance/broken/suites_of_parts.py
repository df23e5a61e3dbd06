"""One suite for each broken stage, router and hooks; run as ``suites.py`` is."""

import broken_parts
import pytest

from trunnion import ChoiceDelta, GenerateEvent, GenerateRequest, TextPrompt, Usage
from trunnion.testing import HooksSuite, RouterSuite, StageSuite


@pytest.fixture
def requests(self):
    return [GenerateRequest(prompt=TextPrompt(text=text)) for text in ("one", "two", "three")]


@pytest.fixture
def streams(self):
    pieces = [ChoiceDelta(text=text) for text in ("a-", "-b - c-", "--d")]
    last = ChoiceDelta(text="--", finish_reason="stop")
    events = [GenerateEvent(choices=(piece,)) for piece in pieces]
    events.append(GenerateEvent(choices=(last,), usage=Usage(prompt_tokens=3, completion_tokens=9)))
    return [(GenerateRequest(prompt=TextPrompt(text="Hello")), events)]


BASES = {"upper": StageSuite, "dash": StageSuite, "fewest": RouterSuite, "tag": HooksSuite}
for _name in broken_parts.EXPECTED:
    _kind = _name.partition("-")[0]
    _members = {"plugin": _name, "__module__": __name__}
    _members |= {"requests": requests} if _kind == "upper" else {"streams": streams} if _kind == "dash" else {}
    _members |= {"many": 3000} if _kind == "fewest" else {}
    _class = "Test_" + _name.replace("-", "_")
    globals()[_class] = type(_class, (BASES[_kind],), _members)
