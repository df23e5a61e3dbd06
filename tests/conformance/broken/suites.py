"""One suite for each broken engine. Not collected by the tests of the project: they run this file in a process."""

import broken_engines
import pytest

from trunnion import engine_spec
from trunnion.testing import EngineSuite


def suite(fault):
    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls):
        return engine_spec(f"broken-{fault}")

    members = {"plugin": f"broken-{fault}", "adapters": {"a": "", "b": ""}, "engine": engine, "patience": 6}
    if fault == "computes-for-each-token":
        members["patience"] = 60  # it is slow, and no test is to take that for hanging
    members["many"] = 300  # more than run side by side, and than there are slots
    members["__module__"] = __name__
    return type("Test_" + fault.replace("-", "_"), (EngineSuite,), members)


for _fault in broken_engines.EXPECTED:
    globals()["Test_" + _fault.replace("-", "_")] = suite(_fault)
