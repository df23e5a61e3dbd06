"""Put the figures of several processes into one exposition, so that one question of Prometheus' is enough for all."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_SAMPLE: Final = re.compile(r"([A-Za-z_:][\w:]*)(\{)?")


def gather(own: str, others: Iterable[tuple[str, str]]) -> str:
    """Return expositions in Prometheus' text format as one.

    Args:
        own: This process's.
        others: Those of others, each with the name of who told it: their samples get it as the label ``replica``.
    """
    families: dict[str, tuple[list[str], list[str]]] = {}
    _add(own, "", families)
    for replica, text in others:
        _add(text, f'replica="{replica}"', families)
    return "".join("\n".join([*head, *samples, ""]) for head, samples in families.values())


def _add(text: str, label: str, families: dict[str, tuple[list[str], list[str]]]) -> None:
    head: list[str] = []
    samples: list[str] = []
    known = False
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name = line.split(" ", 3)[2]
            known = name in families
            head, samples = families.setdefault(name, ([], []))
        if line.startswith("#"):
            if not known:
                head.append(line)
        elif line:
            samples.append(_labelled(line, label) if label else line)


def _labelled(sample: str, label: str) -> str:
    found = _SAMPLE.match(sample)
    assert found is not None, sample
    if found[2] is None:
        return f"{found[1]}{{{label}}}{sample[found.end() :]}"
    more = sample[found.end() :]
    return f"{found[1]}{{{label}{'' if more.startswith('}') else ','}{more}"
