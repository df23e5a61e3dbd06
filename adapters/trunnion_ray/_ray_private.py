"""Reach what Ray keeps private and both Data and Serve need. Used with 2.54 <= ray < 2.62."""

from __future__ import annotations

import ray


def can_grow() -> bool:
    """Tell whether the cluster may get further nodes: not so if this process started Ray for itself."""
    node = getattr(ray._private.worker, "_global_node", None)  # noqa: SLF001
    return not getattr(node, "head", False)
