"""Name the command under test, and wait for what it says."""

import sys

COMMAND = [sys.executable, "-m", "trunnion_cli.main"]


def wait_for_line(stream, wanted):
    """Read lines until one contains the text; return all of them."""
    seen = []
    for line in stream:
        seen.append(line)
        if wanted in line:
            return "".join(seen)
    raise AssertionError(f"no {wanted!r} in:\n{''.join(seen)}")
