"""Keep what the flags before and after a command's name said; one command runs per process."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True, kw_only=True)
class State:
    """Hold the options that belong to no single command.

    Attributes:
        debug: Show tracebacks.
        verbose: Log at INFO.
        policy_names: Names given to --allow-plugin and --block-plugin, by flag, to be checked against what there is.
    """

    debug: bool = False
    verbose: bool = False
    policy_names: list[tuple[str, str]] = field(default_factory=list)


STATE = State()
