"""Keep a suite whole: a standard test is switched off by ``xfail`` with a reason, and in no other way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NoReturn

import pytest

LAST = "trunnion_last"
"""Mark of tests that stop the engine: they run when the others of their class are through."""
RESTART = "trunnion_restart"
"""Mark of tests after whose failure the engine is started anew: it may have leaked, or hang."""
FAILED = pytest.StashKey[bool]()


class Suite:
    """Base of the suites.

    Attributes:
        plugin: Name of the plugin under test, as users write it.
        xfail: Why a standard test cannot pass yet, by test name (``"test_field[sampling.seed]"``, or without the
            brackets for all of its cases). Strict: one that passes all the same fails, so that reasons do not outlive
            their cause.
        lenient: Report what the suite was given no material for as skipped, not as failed; ``trunnion plugins check``
            does, where nobody can give fixtures.
    """

    plugin: ClassVar[str] = ""
    lenient: ClassVar[bool] = False
    xfail: ClassVar[Mapping[str, str]] = {}
    _standard: ClassVar[Mapping[str, Any]] = {}
    _given_up: ClassVar[str] = ""

    def __init_subclass__(cls, *, standard: bool = False, **more: Any) -> None:
        """Refuse a subclass that replaces or removes a standard test.

        Raises:
            TypeError: It does; pytest reports it as an error of collection.
        """
        super().__init_subclass__(**more)
        if standard:
            tests = (name for base in cls.__mro__ for name in vars(base) if name.startswith("test_"))
            cls._standard = {name: getattr(cls, name) for name in sorted(set(tests))}
            return
        changed = [name for name, test in cls._standard.items() if getattr(cls, name, None) is not test]
        if changed:
            raise TypeError(
                f"{cls.__name__} changes the standard test {changed[0]}; a test that cannot pass yet is named in "
                f"xfail = {{{changed[0]!r}: 'the reason'}}"
            )

    @classmethod
    def lacking(cls, advice: str) -> NoReturn:
        """End a test that the suite gives no material for: what is declared must be shown."""
        if cls.lenient:
            pytest.skip(advice)
        pytest.fail(advice)

    @classmethod
    def unusable(cls) -> str:
        """Return why nothing of the plugin can be tested; empty where it can."""
        return ""

    @classmethod
    def give_up(cls, why: str) -> NoReturn:
        """Fail this test, and leave out those of the suite that come after it: they have the same cause."""
        cls._given_up = why
        pytest.fail(why, pytrace=False)

    @classmethod
    def admit(cls) -> None:
        """Let a test of the suite begin, unless its cause to fail was reported already, or is to be now."""
        if cls._given_up:
            pytest.skip(f"reported once: {cls._given_up}")
        if why := cls.unusable():
            cls.give_up(why)

    @pytest.fixture(autouse=True)
    def _whole(self) -> None:
        """Fail where a standard test was taken away after the class was made."""
        lost = [name for name, test in self._standard.items() if getattr(type(self), name, None) is not test]
        assert not lost, f"{type(self).__name__} lost the standard test {lost[0]}"


def suite_of(item: Any) -> type[Suite] | None:
    """Return the suite that an item or a fixture's request belongs to."""
    cls = getattr(item, "cls", None)
    return cls if isinstance(cls, type) and issubclass(cls, Suite) else None


def _plain_name(item: pytest.Item) -> str:
    return str(getattr(item, "originalname", None) or item.name)


def arrange(items: list[pytest.Item]) -> None:
    """Apply ``xfail``, refuse other ways out, and let the tests that stop an engine come last of their class.

    Raises:
        pytest.UsageError: ``xfail`` names no standard test, or one is skipped by a mark of its own.
    """
    for cls in dict.fromkeys(filter(None, map(suite_of, items))):
        wrong = [name for name in cls.xfail if name.partition("[")[0] not in cls._standard]
        if wrong:
            raise pytest.UsageError(f"{cls.__name__}.xfail names {wrong[0]!r}, which is no standard test of the kit")
    for item in items:
        suite = suite_of(item)
        if suite is None or _plain_name(item) not in suite._standard:  # noqa: SLF001 - of this module
            continue
        if any(mark.name in ("skip", "skipif") for mark in item.own_markers):
            raise pytest.UsageError(f"{item.nodeid} is skipped; name it in {suite.__name__}.xfail with the reason")
        reason = suite.xfail.get(item.name) or suite.xfail.get(_plain_name(item))
        if reason:
            item.add_marker(pytest.mark.xfail(reason=reason, strict=True))
    order = {cls: place for place, cls in enumerate(dict.fromkeys(map(suite_of, items)))}

    def place(item: pytest.Item) -> tuple[int, bool]:
        cls = suite_of(item)
        return (order[cls], item.get_closest_marker(LAST) is not None) if cls is not None else (order[None], False)

    if any(item.get_closest_marker(LAST) for item in items):
        items.sort(key=place)
