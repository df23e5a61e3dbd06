"""Write the table of engines and what each can do, from what the plugins declare. The README carries it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from trunnion import FEATURES, EnginePlugin, StagePlugin, Support
from trunnion.capabilities import HINTS, PROTOCOLS

_SIGNS: Final = {Support.YES: "yes", Support.NO: "no", Support.UNKNOWN: "asks the engine"}
_PROTOCOLS: Final = {name: name.partition("/")[0].replace("_", " ") for name in PROTOCOLS}


def support_cell(feature: str, engine: EnginePlugin, stages: Sequence[StagePlugin]) -> str:
    """Say whether the engine has the feature, or the stages add it for an engine whose prompts they make."""
    support = engine.capabilities.support(feature)
    if support is Support.NO:
        takes_ours = engine.capabilities.prompts[0] != "messages"
        streams = (stage for stage in stages if stage.shape == "stream" and stage.automatic)
        if any(feature in stage.supplies and (takes_ours or not stage.needs) for stage in streams):
            return "by a stage"
    return _SIGNS[support]


def protocol_cell(protocol: str, engine: EnginePlugin) -> str:
    """Say whether the engine has an optional protocol, or declares it with a reason why it may be refused."""
    if protocol not in engine.capabilities.protocols:
        return _SIGNS[Support.NO]
    return _SIGNS[Support.UNKNOWN if protocol in engine.capabilities.reasons else Support.YES]


def capability_table(engines: Iterable[EnginePlugin], stages: Sequence[StagePlugin]) -> str:
    """Return a Markdown table: a row for each feature, a column for each engine, in the order of their names.

    Rows that are alike within a group (``sampling``, ``output_format``, ``media``) and equal for every engine are
    folded into one.
    """
    ordered = sorted(engines, key=lambda engine: engine.name)
    rows = [("runs on", [", ".join(engine.hardware) for engine in ordered])]
    rows.append(("takes prompts as", [", ".join(engine.capabilities.prompts) for engine in ordered]))
    folded: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for feature in FEATURES:
        if feature in HINTS:
            continue  # they inform routers, hooks and tracers, and change no output
        cells = tuple(support_cell(feature, engine, stages) for engine in ordered)
        group, _, name = feature.rpartition(".")
        folded.setdefault((group, cells), []).append(name)
    for (group, cells), names in sorted(folded.items(), key=lambda item: (item[0][0], item[1])):
        label = ", ".join(f"`{name}`" for name in names)
        rows.append((f"{group or 'request'}: {label}", list(cells)))
    for protocol, label in _PROTOCOLS.items():
        cells = tuple(protocol_cell(protocol, engine) for engine in ordered)
        if set(cells) != {"no"}:
            rows.append((label, list(cells)))
    lines = ["| | " + " | ".join(f"**{engine.name}**" for engine in ordered) + " |"]
    lines.append("|---|" + "---|" * len(ordered))
    lines.extend(f"| {label} | " + " | ".join(cells) + " |" for label, cells in rows)
    return "\n".join(lines)
