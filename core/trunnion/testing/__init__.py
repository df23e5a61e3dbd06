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


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Apply the suites' rules."""
    _guard.arrange(items)


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
    "pytest_runtest_makereport",
]
