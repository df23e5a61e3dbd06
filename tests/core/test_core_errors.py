import copy
import pickle
import re

import pytest

from trunnion import errors
from trunnion.errors import FIELDS, Cancelled, NotFound, Overloaded, TrunnionError

CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, TrunnionError)]
VALUES = {
    "param": "sampling.temperature",
    "retry_after": 2.5,
    "details": {"engine": "sim", "nested": {"list": [1, "two", None]}},
    "code": "own_code",
    "http_status": 418,
    "retryable": True,
}


class Quota(Overloaded):
    """Stand for a third party's error, with a constructor and a field of its own."""

    def __init__(self, tenant, limit):
        super().__init__(f"tenant {tenant} may send {limit}", param="tenant", retry_after=9.0)
        self.tenant = tenant


class Elsewhere:
    class NotFound(TrunnionError):
        """Be called like one of the tree without deriving from it."""


def fields(error):
    return {name: getattr(error, name) for name in FIELDS}


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_keeps_every_field(cls, protocol):
    for error in (cls("what, where", **VALUES), cls("plain"), cls()):
        back = pickle.loads(pickle.dumps(error, protocol))
        assert type(back) is cls
        assert fields(back) == fields(error)
        assert (str(back), back.args, repr(back)) == (str(error), error.args, repr(error))


@pytest.mark.parametrize("cls", CLASSES)
def test_a_dict_keeps_every_field(cls):
    error = cls("what, where", **VALUES)
    written = error.to_dict()
    assert written["type"] == cls.__name__
    back = TrunnionError.from_dict(written)
    assert type(back) is cls
    assert fields(back) == fields(error)
    written["details"]["later"] = 1
    assert "later" not in error.details
    assert "later" not in back.details


def test_a_dict_of_an_unknown_type_becomes_the_class_asked():
    back = Cancelled.from_dict({"type": "FromTheFuture", "message": "hm", "code": "new"})
    assert (type(back), back.message, back.code, back.http_status) == (Cancelled, "hm", "new", 499)
    assert TrunnionError.from_dict({"details": None}).details == {}


@pytest.mark.parametrize("cls", CLASSES)
def test_no_field_is_on_the_class(cls):
    assert [name for name in FIELDS if hasattr(cls, name)] == []


def test_the_docstring_draws_the_real_tree():
    drawn = {}
    stack = []
    for line in errors.__doc__.splitlines():
        found = re.match(r"    ([│ ├└─]*)(\w+)  +(\w+)(?: +(\d+))?(  retry)?", line)
        if found is None:
            continue
        depth = len(found[1]) // 4
        stack[depth:] = [found[2]]
        drawn[found[2]] = (stack[depth - 1] if depth else "Exception", found[3], found[4], found[5] is not None)
    assert set(drawn) == {cls.__name__ for cls in CLASSES}
    for cls in CLASSES:
        parent, code, status, retry = drawn[cls.__name__]
        error = cls()
        assert cls.__base__.__name__ == parent
        assert (error.code, error.retryable) == (code, retry), cls
        assert status is None or error.http_status == int(status)
    assert len({(cls().code) for cls in CLASSES} - {"internal_error"}) == len(CLASSES) - 2


def test_a_third_party_derives_its_own():
    error = Quota("a", 3)
    assert (error.code, error.http_status, error.retryable) == ("overloaded", 429, True)
    back = pickle.loads(pickle.dumps(error))
    assert (type(back), back.tenant, fields(back)) == (Quota, "a", fields(error))
    assert Elsewhere.NotFound().http_status == 500
    assert NotFound().http_status == 404


def test_copies_and_notes():
    error = Quota("a", 3)
    error.add_note("seen at the gate")
    for back in (copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        assert (type(back), fields(back), back.__notes__) == (Quota, fields(error), ["seen at the gate"])
    deep = copy.deepcopy(errors.NotFound("x", details={"a": [1]}))
    deep.details["a"].append(2)
    assert deep.details == {"a": [1, 2]}


def test_the_cause_is_kept_here_and_left_behind_by_pickle():
    error = NotFound("no such thing")
    with pytest.raises(NotFound) as caught:
        raise error from KeyError("raw")
    assert isinstance(caught.value.__cause__, KeyError)
    assert pickle.loads(pickle.dumps(caught.value)).__cause__ is None


def test_details_are_copied_in():
    mine = {"a": 1}
    error = TrunnionError("x", details=mine)
    mine["b"] = 2
    assert error.details == {"a": 1}
