"""Let tests import what makes the generated parts of the documentation."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))


def pytest_configure(config):
    """Know the marks of the conformance kit, whose tests a page lists."""
    for mark in ("trunnion_last", "trunnion_restart"):
        config.addinivalue_line("markers", f"{mark}: of the conformance kit")
