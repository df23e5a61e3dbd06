"""Describe deployments for machines that have what this one lacks."""

from __future__ import annotations

from typing import Any, Final

from trunnion.loader import PluginState
from trunnion.plugin import EnginePlugin, HooksPlugin, RouterPlugin, SourcePlugin, StagePlugin
from trunnion.registry import Registry

_KINDS: Final = (EnginePlugin, StagePlugin, RouterPlugin, HooksPlugin, SourcePlugin)


class ElsewhereRegistry(Registry):
    """Take plugins whose library is missing here: settings and resources are read without it."""

    def _get(self, cls: Any, kind: str, name: str) -> Any:
        record = self.record(kind, name)
        if record is not None and record.state is PluginState.NOT_INSTALLED and isinstance(record.plugin, _KINDS):
            return record.plugin
        return super()._get(cls, kind, name)
