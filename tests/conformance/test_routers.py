"""Hold the routers to the contract."""

import pytest

from trunnion.testing import RouterSuite


class TestLeastLoaded(RouterSuite):
    plugin = "least_loaded"


class TestPowerOfTwo(RouterSuite):
    plugin = "power_of_two"


class TestAffinity(RouterSuite):
    plugin = "affinity"


pytestmark = pytest.mark.slow
