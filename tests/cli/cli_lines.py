"""Wait for what a command says."""


def wait_for_line(stream, wanted):
    """Read lines until one contains the text; return all of them."""
    seen = []
    for line in stream:
        seen.append(line)
        if wanted in line:
            return "".join(seen)
    raise AssertionError(f"no {wanted!r} in:\n{''.join(seen)}")
