"""Check what an engine declares: capabilities, protocols, resources."""

from __future__ import annotations

import json

from trunnion.capabilities import FEATURES, HINTS, Support
from trunnion.engine import (
    Classifies,
    Embeds,
    EmitsKVEvents,
    HotAdapters,
    ProbesHealth,
    Relays,
    ReportsLoad,
    ResetsCache,
    Scores,
    Sleeps,
    Transcribes,
)
from trunnion.registry import get_registry
from trunnion.spec import EngineSpec, Resources

from .isolation import loaded_without
from .mount import Mount
from .registration import RegistrationChecks

PROTOCOL_CLASSES: dict[str, type] = {
    "embeds/1": Embeds,
    "scores/1": Scores,
    "classifies/1": Classifies,
    "transcribes/1": Transcribes,
    "hot_adapters/1": HotAdapters,
    "sleeps/1": Sleeps,
    "resets_cache/1": ResetsCache,
    "reports_load/1": ReportsLoad,
    "emits_kv_events/1": EmitsKVEvents,
    "probes_health/1": ProbesHealth,
    "relays/1": Relays,
}


class DeclaringChecks(RegistrationChecks):
    """Hold for what an engine says of itself before and after it has started."""

    def test_every_field_of_a_request_is_classified(self, mount: Mount) -> None:
        """Capabilities name every feature; one left out is refused at run time, which nobody may have meant."""
        declared = mount.plugin.capabilities.features
        left_out = [feature for feature in FEATURES if feature not in declared]
        assert left_out == [], f"classify {', '.join(left_out)} as yes, no or unknown"

    def test_unknown_says_why(self, mounted: Mount) -> None:
        """Whatever is *unknown* has a reason."""
        for capabilities in (mounted.plugin.capabilities, mounted.info.capabilities):
            unknown = [name for name, support in capabilities.features.items() if support is Support.UNKNOWN]
            lacking = [name for name in unknown if not capabilities.reasons.get(name)]
            assert not lacking, f"give reasons={{{', '.join(f'{name!r}: ...' for name in lacking)}}}"

    def test_start_only_narrows(self, mounted: Mount) -> None:
        """The started engine declares no more than its plugin did without loading anything."""
        before, after = mounted.plugin.capabilities, mounted.info.capabilities
        widened = [
            name
            for name in FEATURES
            if before.support(name) is Support.NO and after.support(name) is not Support.NO and name not in HINTS
        ]
        assert not widened, f"start() declares {', '.join(widened)}, which the plugin does not"
        more = sorted(set(after.protocols) - set(before.protocols))
        assert not more, f"start() declares {', '.join(more)}, which the plugin does not"

    def test_declared_protocols_are_there(self, mounted: Mount) -> None:
        """Each optional protocol that is declared is implemented."""
        lacking = [
            name
            for name in sorted(mounted.plugin.capabilities.protocols)
            if not isinstance(mounted.engine, PROTOCOL_CLASSES[name])
        ]
        assert not lacking, f"{', '.join(lacking)}: declared, not implemented"

    def test_protocols_that_are_there_are_declared(self, mounted: Mount) -> None:
        """An optional protocol that the engine implements is declared: nobody would find it otherwise."""
        hidden = [
            name
            for name, protocol in PROTOCOL_CLASSES.items()
            if isinstance(mounted.engine, protocol) and name not in mounted.plugin.capabilities.protocols
        ]
        assert not hidden, f"{', '.join(hidden)}: implemented, not declared; add it to protocols"

    def test_info_names_the_engine(self, mounted: Mount) -> None:
        """``start()`` says which engine and library it is, and how many requests it is useful to have in flight."""
        assert mounted.info.engine == self.plugin
        assert mounted.info.concurrency >= 1
        assert mounted.info.library, "EngineInfo.library names what runs the model, with its version"

    def test_the_spec_survives_json(self, mount: Mount) -> None:
        """The spec is equal after a round trip through JSON, and its settings validate again."""
        spec = mount.spec
        again = EngineSpec.from_json(json.loads(json.dumps(spec.to_json())))
        assert again == spec
        rebuilt = get_registry().engine_spec(spec.engine, spec.model, again.config)
        assert rebuilt.config == spec.config

    def test_resources_are_pure_and_light(self, mount: Mount) -> None:
        """``resources(config)`` gives the same answer twice, without the library."""
        plugin = mount.plugin
        found = get_registry().resources(mount.spec)
        assert isinstance(found, Resources)
        assert found.bundles
        assert all(bundle.cpu >= 0 and bundle.gpu >= 0 for bundle in found.bundles)
        if plugin.resources is not None:
            poisoned = tuple(r.module for r in plugin.requires)
            answer = loaded_without(self.plugin, kind="engine", poisoned=poisoned, config=dict(mount.spec.config))
            assert answer.get("resources") == {"kind": "Resources", "same": True}
