"""Check what a plugin registers, whatever its kind."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel

from trunnion.errors import PluginError
from trunnion.loader import PluginRecord, PluginState
from trunnion.plugin import API_VERSION, LibraryRequirement
from trunnion.registry import SAID, get_registry, validate_config

from ._guard import Suite
from .isolation import loaded_without


class RegistrationChecks(Suite):
    """Hold for plugins of every kind.

    Attributes:
        config: Settings, for kinds that are built without an engine spec.
    """

    kind: ClassVar[str] = ""
    config: ClassVar[dict[str, Any]] = {}

    @classmethod
    def unusable(cls) -> str:
        """Return why the plugin cannot be used here; empty where it can."""
        try:
            record = get_registry().record(cls.kind, cls.plugin)
            if record is None and cls.kind == "engine":
                get_registry().engine(cls.plugin)  # says which there are
        except PluginError as error:
            return str(error)
        if record is None:
            return f"no {cls.kind} plugin is called {cls.plugin!r}; is its distribution installed?"
        if record.state is not PluginState.OK:
            where = f"{record.distribution} {record.version}".strip()
            return f"{cls.kind} {cls.plugin!r} ({where}) {SAID[record.state]}: {record.reason}"
        return ""

    def _record(self) -> PluginRecord:
        found = [r for r in get_registry().plugins() if r.kind == self.kind and r.name == self.plugin]
        assert found, f"no {self.kind} plugin is called {self.plugin!r}; is its distribution installed?"
        return found[0]

    def test_it_is_registered_and_can_be_used(self) -> None:
        """The entry point loads, the plugin's API version fits, and what it requires is here."""
        record = self._record()
        assert record.state is PluginState.OK, f"{record.state.value}: {record.reason}"
        assert record.plugin is not None
        major, minor = record.plugin.api_version
        assert (major, minor) <= API_VERSION
        assert record.plugin.summary, "a plugin needs a summary, for `trunnion plugins list`"

    def test_registering_imports_nothing_heavy(self) -> None:
        """The plugin's module loads in a process where its library, and every other heavy one, cannot be imported."""
        plugin = self._record().plugin
        assert plugin is not None
        requires: tuple[LibraryRequirement, ...] = plugin.requires
        answer = loaded_without(self.plugin, kind=self.kind, poisoned=tuple(r.module for r in requires))
        assert answer["states"], "the plugin did not register without its library"
        assert "failed" not in answer["states"], answer["reasons"]

    def test_every_setting_is_described(self) -> None:
        """Each setting has a description, those of nested models too."""
        plugin = self._record().plugin
        assert plugin is not None
        assert undescribed(plugin.config) == []

    def test_unknown_settings_are_refused(self) -> None:
        """A setting that does not exist is refused, in nested models too."""
        plugin = self._record().plugin
        assert plugin is not None
        assert lenient(plugin.config) == [], "set model_config = ConfigDict(extra='forbid')"

    def test_settings_survive_json(self) -> None:
        """Settings are equal after a round trip through JSON."""
        plugin = self._record().plugin
        assert plugin is not None
        valid = validate_config(plugin.config, self._settings(), where=self.plugin)
        again = plugin.config.model_validate_json(valid.model_dump_json(exclude_unset=True))
        assert again == valid

    def _settings(self) -> dict[str, Any]:
        return dict(self.config)


def undescribed(model: type[BaseModel], where: str = "") -> list[str]:
    """List the fields without a description, dotted."""
    lacking = [f"{where}{name}" for name, field in model.model_fields.items() if not field.description]
    for name, nested in _nested(model):
        lacking += undescribed(nested, f"{where}{name}.")
    return lacking


def lenient(model: type[BaseModel], where: str = "") -> list[str]:
    """List the models that take unknown keys, dotted; the outermost is called by its class."""
    found = [] if model.model_config.get("extra") == "forbid" else [where.rstrip(".") or model.__name__]
    for name, nested in _nested(model):
        found += lenient(nested, f"{where}{name}.")
    return found


def _nested(model: type[BaseModel]) -> list[tuple[str, type[BaseModel]]]:
    """List the models among the annotations of a model's fields."""
    found = []
    for name, field in model.model_fields.items():
        pending: list[Any] = [field.annotation]
        while pending:
            annotation = pending.pop()
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                if annotation is not model:
                    found.append((name, annotation))
            else:
                pending.extend(getattr(annotation, "__args__", ()))
    return found
