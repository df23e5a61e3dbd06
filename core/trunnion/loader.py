"""Load plugins from entry points, each in isolation, and say what became of every one of them.

pluggy's own ``load_setuptools_entrypoints`` has no error isolation and lets the first of two equal names win in
silence; this loader keeps a state for each instead.
"""

from __future__ import annotations

import difflib
import enum
import importlib.metadata
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType, ModuleType
from typing import Any, cast

import pluggy

from . import hookspecs
from ._versions import api_mismatch, missing, out_of_range, perhaps_newer
from .deprecation import deprecations_of
from .plugin import EnginePlugin, HooksPlugin, Plugin, RouterPlugin, SourcePlugin, StagePlugin
from .spec import PluginPolicy

ALLOW_VARIABLE = "TRUNNION_PLUGINS_ALLOW"
BLOCK_VARIABLE = "TRUNNION_PLUGINS_BLOCK"
_KINDS = {
    "trunnion_engines": EnginePlugin,
    "trunnion_stages": StagePlugin,
    "trunnion_routers": RouterPlugin,
    "trunnion_hooks": HooksPlugin,
    "trunnion_sources": SourcePlugin,
}


class PluginState(enum.StrEnum):
    """Tell what became of a plugin."""

    OK = "ok"
    BLOCKED = "blocked"
    CONFLICT = "conflict"
    INCOMPATIBLE = "incompatible"
    FAILED = "failed"
    NOT_INSTALLED = "not installed"


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginRecord:
    """Describe one plugin value, or an entry point that gave none.

    Attributes:
        name: The plugin's name; the entry point's where nothing was loaded.
        kind: "engine", "stage", "router", "hooks", "source", or "" where nothing was loaded.
        entry_point, module, distribution, version: Where it came from.
        state, reason: What became of it, and why in words.
        plugin: The registered value; None where nothing was loaded.
        error: The exception of a failed one, for ``raise ... from``.
        deprecated: What it uses that the next major plugin API will not have, a sentence each.
    """

    name: str
    kind: str
    entry_point: str
    module: str
    distribution: str
    version: str
    state: PluginState = PluginState.OK
    reason: str = ""
    plugin: Plugin | None = None
    error: BaseException | None = None
    deprecated: tuple[str, ...] = ()


def normalize(name: str) -> str:
    """Return a name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def policy_from_environment() -> PluginPolicy:
    """Read the names to allow and to block, separated by commas, from the environment."""

    def names(variable: str) -> frozenset[str]:
        return frozenset(part.strip() for part in os.environ.get(variable, "").split(",") if part.strip())

    return PluginPolicy(allow=names(ALLOW_VARIABLE), block=names(BLOCK_VARIABLE))


def _refused(policy: PluginPolicy, *names: str) -> str:
    """Return why the policy refuses an entry point, or an empty string."""
    normalized = {normalize(name) for name in names}
    for blocked in policy.block:
        if normalize(blocked) in normalized:
            return f"blocked by name {blocked!r}"
    if policy.allow and not normalized & {normalize(name) for name in policy.allow}:
        return f"not among those allowed ({', '.join(sorted(policy.allow))})"
    return ""


def load(
    entry_points: Iterable[importlib.metadata.EntryPoint],
    policy: PluginPolicy,
    *,
    specs: ModuleType | type = hookspecs,
    arguments: Mapping[str, object] = MappingProxyType({}),
) -> list[PluginRecord]:
    """Load every entry point and return a record for each plugin value, in the order of their names.

    Args:
        entry_points: Where plugins are.
        policy: Which of them may be loaded.
        specs: Holds the hook specifications; a hook's options say what of it is deprecated.
        arguments: What a hook that takes arguments is given, by name. Those of today take none.
    """
    found = sorted(entry_points, key=lambda ep: (ep.name, _distribution(ep)[0]))
    admitted = [ep for ep in found if not _refused(policy, ep.name, _distribution(ep)[0])]
    claims = Counter(ep.name for ep in admitted)
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(specs)
    records: list[PluginRecord] = []
    for ep in found:
        distribution, version = _distribution(ep)
        blank = PluginRecord(
            name=ep.name, kind="", entry_point=ep.name, module=ep.value, distribution=distribution, version=version
        )
        if reason := _refused(policy, ep.name, distribution):
            records.append(replace(blank, state=PluginState.BLOCKED, reason=reason))
        elif claims[ep.name] > 1:
            records.append(replace(blank, state=PluginState.CONFLICT, reason=_rivals(ep, admitted)))
        else:
            records.extend(_load_one(ep, blank, manager, arguments))
    return _mark_equal_names(records)


def _distribution(ep: importlib.metadata.EntryPoint) -> tuple[str, str]:
    return (ep.dist.name, ep.dist.version) if ep.dist is not None else ("", "")


def _rivals(ep: importlib.metadata.EntryPoint, admitted: list[importlib.metadata.EntryPoint]) -> str:
    names = ", ".join(" ".join(_distribution(other)).strip() for other in admitted if other.name == ep.name)
    return f"several distributions claim the entry point {ep.name!r}: {names}; uninstall or block all but one"


def _load_one(
    ep: importlib.metadata.EntryPoint,
    blank: PluginRecord,
    manager: pluggy.PluginManager,
    arguments: Mapping[str, object],
) -> list[PluginRecord]:
    try:
        module = ep.load()
        if manager.is_registered(module):
            raise TypeError(f"{ep.value} is registered twice; give each entry point its own module")  # noqa: TRY301
        manager.register(module, name=ep.name)
        values = list(_values(module, manager, ep.name, arguments))
        judged = [(value, *_judge(value), _warn(value, module)) for value in values]
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a broken plugin never takes the others down
        reason = f"{type(error).__name__}: {error}{perhaps_newer(error)}"
        if manager.has_plugin(ep.name):
            manager.unregister(name=ep.name)
        return [replace(blank, state=PluginState.FAILED, reason=reason, error=error)]
    if not judged:
        return [replace(blank, reason="registers nothing")]
    of_hooks = tuple(_deprecated_hooks(module, manager))
    return [
        replace(
            blank, name=value.name, kind=value.kind, plugin=value, state=state, reason=reason,
            deprecated=(*of_hooks, *of_fields),
        )
        for value, state, reason, of_fields in judged
    ]  # fmt: skip


def _warn(value: Plugin, module: object) -> tuple[str, ...]:
    """Give the warnings of a value's deprecated fields and return them as sentences."""
    found = tuple(deprecations_of(value))
    for warning in found:
        warnings.warn_explicit(warning, category=type(warning), filename=str(getattr(module, "__file__", "")), lineno=1)
    return tuple(f"{value.kind} {value.name!r}: {warning}" for warning in found)


def _deprecated_hooks(module: object, manager: pluggy.PluginManager) -> Iterator[str]:
    """Yield what pluggy warned of as the module was registered."""
    for caller in manager.get_hookcallers(module) or ():
        if caller.spec is None:
            continue
        if caller.spec.warn_on_impl is not None:
            yield str(caller.spec.warn_on_impl)
        for implementation in caller.get_hookimpls():
            if implementation.plugin is module:
                of_arguments = caller.spec.warn_on_impl_args or {}
                yield from (str(of_arguments[name]) for name in implementation.argnames if name in of_arguments)


def _values(
    module: object, manager: pluggy.PluginManager, name: str, arguments: Mapping[str, object]
) -> Iterator[Plugin]:
    """Call this module's hook implementations and check what they return."""
    callers = manager.get_hookcallers(module) or []
    if not callers:
        raise TypeError(
            f"{getattr(module, '__name__', module)} implements no hook; decorate one with @trunnion.hookimpl"
        )
    for caller in callers:
        if caller.name not in _KINDS:
            mine = [one for one in caller.get_hookimpls() if one.plugin_name == name]
            if all(one.optionalhook for one in mine):
                continue  # of a later minor version, and the plugin can do without
            near = difflib.get_close_matches(caller.name, _KINDS, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; hooks: {', '.join(_KINDS)}"
            raise TypeError(f"unknown hook {caller.name}{hint}")
        wanted = _KINDS[caller.name]
        for implementation in caller.get_hookimpls():
            if implementation.plugin_name != name:
                continue
            returned: Any = implementation.function(*(arguments[one] for one in implementation.argnames))
            if not isinstance(returned, list | tuple):
                raise TypeError(f"{caller.name} must return a list of {wanted.__name__}, not {type(returned).__name__}")
            for value in returned:
                if not isinstance(value, wanted):
                    raise TypeError(
                        f"{caller.name} must return a list of {wanted.__name__}, not of {type(value).__name__}"
                    )
                yield cast("Plugin", value)


def _judge(plugin: Plugin) -> tuple[PluginState, str]:
    if reason := api_mismatch(plugin.api_version):
        return PluginState.INCOMPATIBLE, reason
    for requirement in plugin.requires:
        if reason := missing(requirement):
            return PluginState.NOT_INSTALLED, reason
    for requirement in plugin.requires:
        if reason := out_of_range(requirement):
            return PluginState.INCOMPATIBLE, reason
    return PluginState.OK, ""


def _mark_equal_names(records: list[PluginRecord]) -> list[PluginRecord]:
    """Turn plugins of one kind that share a name into conflicts: neither is used, both are named."""
    counts = Counter((r.kind, r.name) for r in records if r.plugin is not None)
    marked = []
    for record in records:
        if record.plugin is not None and counts[record.kind, record.name] > 1:
            rivals = [r for r in records if (r.kind, r.name) == (record.kind, record.name)]
            names = ", ".join(f"{r.distribution} {r.version} ({r.entry_point})" for r in rivals)
            reason = f"several plugins are called {record.name!r}: {names}; uninstall or block all but one"
            marked.append(replace(record, state=PluginState.CONFLICT, reason=reason))
        else:
            marked.append(record)
    return sorted(marked, key=lambda r: (r.kind, r.name, r.distribution))
