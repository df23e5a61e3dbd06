"""Prove a plugin: a pytest kit that holds engines, stages, routers and hooks to the contract.

One line in ``conftest.py`` enables it: ``pytest_plugins = ["trunnion.testing"]``. A suite is then a class::

    class TestFoo(EngineSuite):
        plugin = "foo"

        @pytest.fixture(scope="class")
        @classmethod
        def engine(cls):
            return engine_spec("foo", "path/to/model")

Needs pytest. What is declared is tested, what is not must be refused. A standard test is switched off by
``xfail = {"test_name": "the reason"}`` alone.
"""

from __future__ import annotations

from collections.abc import Generator

import pytest

from . import _guard
from .asking import Ask
from .engine_suite import EngineSuite
from .hooks_suite import HooksSuite
from .mount import Mount
from .router_suite import RouterSuite
from .stage_suite import StageSuite
from .surface import Answer, Question, Surface
from .surface import surface_names as _surface_names


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the kit's own option."""
    parser.getgroup("trunnion").addoption(
        "--trunnion-surfaces",
        dest="trunnion_surfaces",
        default=None,
        metavar="NAMES",
        help="Surfaces on which engines are asked again, by comma; all that are installed by default, '' for none.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the kit's mark."""
    config.addinivalue_line("markers", f"{_guard.LAST}: stops the engine; runs after the others of its class")
    config.addinivalue_line("markers", f"{_guard.RESTART}: starts the engine anew after a failure")
    known, chosen = _surface_names(), config.getoption("trunnion_surfaces")
    for name in filter(None, (chosen or "").split(",")):
        if name not in known:
            there = ", ".join(known) or "none"
            raise pytest.UsageError(f"--trunnion-surfaces: there is no surface {name!r}; there are: {there}")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Apply the suites' rules."""
    _guard.arrange(items)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Report once what all tests of a suite would fail with."""
    suite = _guard.suite_of(item)
    if suite is not None:
        suite.admit()


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """Report a spec that cannot be made once, as what does not start."""
    suite = _guard.suite_of(request)
    try:
        return (yield)
    except Exception as error:
        if suite is None or fixturedef.argname != "engine":
            raise
        suite.give_up(f"the fixture `engine` failed: {type(error).__name__}: {error}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note for the fixtures that a test failed."""
    report = yield
    if report.when == "call" and report.failed:
        item.stash[_guard.FAILED] = True
    return report


__all__ = [
    "Answer",
    "Ask",
    "EngineSuite",
    "HooksSuite",
    "Mount",
    "Question",
    "RouterSuite",
    "StageSuite",
    "Surface",
    "pytest_addoption",
    "pytest_collection_modifyitems",
    "pytest_configure",
    "pytest_fixture_setup",
    "pytest_runtest_makereport",
    "pytest_runtest_setup",
]
