import logging

import pytest

import trunnion as t
from trunnion import PluginState
from trunnion.errors import (
    ConfigError,
    PluginBlocked,
    PluginConflict,
    PluginError,
    PluginFailed,
    PluginIncompatible,
    PluginNotFound,
    PluginNotInstalled,
)
from trunnion.loader import policy_from_environment

GOOD = "from trunnion import EnginePlugin, hookimpl\n"


@pytest.fixture
def neighbour(site):
    """Install a plugin that must stay usable whatever becomes of the others."""
    site.engine("trunnion-good", name="good")
    return site


def states(registry):
    return {record.name: record.state for record in registry.plugins()}


SAID = {
    PluginState.BLOCKED: "is blocked",
    PluginState.CONFLICT: "is in conflict",
    PluginState.INCOMPATIBLE: "is incompatible",
    PluginState.FAILED: "failed to load",
    PluginState.NOT_INSTALLED: "is not installed",
}


def check_refusal(registry, name, error, state, *words):
    """Ask for a broken plugin: the error says what, where and why; the neighbour is unharmed."""
    with pytest.raises(error) as caught:
        registry.engine(name)
    assert states(registry)[name] is state
    assert type(caught.value) is error
    assert f") {SAID[state]}: " in caught.value.message
    for word in (repr(name), *words):
        assert word in caught.value.message
    assert caught.value.details["state"] == state.value
    assert registry.engine("good").name == "good"
    assert [plugin.name for plugin in registry.engines()] == ["good"]
    return caught.value


def test_ok(neighbour):
    registry = neighbour.registry()
    record = registry.record("engine", "good")
    assert (record.kind, record.entry_point, record.distribution, record.version) == (
        "engine", "good", "trunnion-good", "1.0",
    )  # fmt: skip
    assert record.state is PluginState.OK
    assert registry.distribution_of(registry.engine("good")) == ("trunnion-good", "1.0")


def test_found_through_the_installed_metadata(neighbour):
    assert t.Registry(t.PluginPolicy()).engine("good").name == "good"


@pytest.mark.parametrize("by", ["foo", "trunnion-foo", "Trunnion_Foo"])
def test_blocked_by_entry_point_or_distribution(neighbour, by):
    neighbour.add("trunnion-foo", {"foo": "foo_mod"}, foo_mod="raise SystemExit('must not be imported')")
    check_refusal(
        neighbour.registry(block={by}), "foo", PluginBlocked, PluginState.BLOCKED, "trunnion-foo 1.0", repr(by)
    )


def test_not_among_those_allowed(neighbour):
    neighbour.add("trunnion-foo", {"foo": "foo_mod"}, foo_mod="raise SystemExit('must not be imported')")
    check_refusal(neighbour.registry(allow={"good"}), "foo", PluginBlocked, PluginState.BLOCKED, "allowed (good)")


def test_block_beats_allow(neighbour):
    registry = neighbour.registry(allow={"good"}, block={"trunnion-good"})
    assert states(registry) == {"good": PluginState.BLOCKED}


def test_the_environment_is_the_default_policy(neighbour, monkeypatch):
    monkeypatch.setenv("TRUNNION_PLUGINS_BLOCK", " good , other")
    monkeypatch.setenv("TRUNNION_PLUGINS_ALLOW", "")
    assert policy_from_environment() == t.PluginPolicy(block=frozenset({"good", "other"}))
    with pytest.raises(PluginBlocked):
        t.Registry().engine("good")
    assert t.Registry(t.PluginPolicy()).engine("good")
    monkeypatch.delenv("TRUNNION_PLUGINS_BLOCK")
    monkeypatch.setenv("TRUNNION_PLUGINS_ALLOW", "trunnion")
    with pytest.raises(PluginBlocked):
        t.Registry().engine("good")
    assert t.Registry().engine("sim")


def test_a_misspelt_policy_is_warned_about(neighbour, caplog):
    with caplog.at_level(logging.WARNING):
        neighbour.registry(block={"goood"}, allow={"good"})
    assert [record.getMessage() for record in caplog.records] == [
        "plugins to block: 'goood' is no entry point or distribution here"
    ]


def test_two_distributions_claim_one_entry_point(neighbour):
    neighbour.engine("trunnion-foo", name="foo")
    neighbour.engine("other-foo", name="foo")
    registry = neighbour.registry()
    check_refusal(
        registry, "foo", PluginConflict, PluginState.CONFLICT,
        "trunnion-foo 1.0", "other-foo 1.0", "uninstall or block all but one",
    )  # fmt: skip
    assert neighbour.registry(block={"other-foo"}).engine("foo")


def test_two_distributions_register_one_engine(neighbour):
    neighbour.engine("trunnion-foo", name="foo", entry_point="here")
    neighbour.engine("other-foo", name="foo", entry_point="there", version="2.0")
    registry = neighbour.registry()
    check_refusal(
        registry, "foo", PluginConflict, PluginState.CONFLICT, "trunnion-foo 1.0 (here)", "other-foo 2.0 (there)"
    )
    assert neighbour.registry(block={"here"}).engine("foo")


@pytest.mark.parametrize(("version", "advice"), [("(2, 0)", "upgrade trunnion"), ("(1, 9)", "upgrade trunnion"),
                                                 ("(0, 9)", "upgrade the plugin")])  # fmt: skip
def test_written_for_another_plugin_api(neighbour, version, advice):
    neighbour.engine("trunnion-foo", name="foo", extra=f"api_version={version}")
    check_refusal(neighbour.registry(), "foo", PluginIncompatible, PluginState.INCOMPATIBLE, advice)


@pytest.mark.parametrize(("bounds", "wanted"), [("minimum='99'", ">=99"), ("below='0.1'", "<0.1"),
                                                ("minimum='0.1', below='1.0'", ">=0.1, <1.0")])  # fmt: skip
def test_library_version_out_of_range(neighbour, bounds, wanted):
    library = f"requires=(LibraryRequirement(module='pluggy', distributions=('pluggy',), {bounds}),)"
    neighbour.engine("trunnion-foo", name="foo", extra=library)
    check_refusal(
        neighbour.registry(), "foo", PluginIncompatible, PluginState.INCOMPATIBLE, f"pluggy {wanted}", "found"
    )


def test_library_in_range(site):
    library = (
        "requires=(LibraryRequirement(module='pluggy', distributions=('x-y', 'pluggy'), minimum='1.0.0', below='2'),)"
    )
    site.engine("trunnion-foo", name="foo", extra=library)
    assert site.registry().engine("foo")


def test_library_not_installed(neighbour):
    library = (
        "requires=(LibraryRequirement(module='no_such_lib', distributions=('no-such',), install='pip install x'),)"
    )
    neighbour.engine("trunnion-foo", name="foo", extra=library)
    check_refusal(
        neighbour.registry(), "foo", PluginNotInstalled, PluginState.NOT_INSTALLED,
        "needs no_such_lib", "install it: pip install x",
    )  # fmt: skip


FAILURES = {
    "import error": ("import no_such_module_here", "ModuleNotFoundError"),
    "syntax error": ("def", "SyntaxError"),
    "exit": ("raise SystemExit(3)", "SystemExit"),
    "no hook": ("x = 1", "implements no hook"),
    "exception in the hook": (GOOD + "@hookimpl\ndef trunnion_engines():\n    raise KeyError('inside')", "inside"),
    "not a list": (
        GOOD + "@hookimpl\ndef trunnion_engines():\n    return EnginePlugin(name='foo', factory='a:b')",
        "must return a list of EnginePlugin, not EnginePlugin",
    ),
    "none": (GOOD + "@hookimpl\ndef trunnion_engines():\n    pass", "not NoneType"),
    "wrong type": (GOOD + "@hookimpl\ndef trunnion_stages():\n    return [EnginePlugin(name='foo', factory='a:b')]",
                   "must return a list of StagePlugin, not of EnginePlugin"),
    "misspelt hook": (GOOD + "@hookimpl\ndef trunnion_engine():\n    return []", "did you mean trunnion_engines?"),
    "unknown hook": (GOOD + "@hookimpl\ndef zzz():\n    return []", "hooks: trunnion_engines"),
    "misspelt argument": (GOOD + "@hookimpl\ndef trunnion_engines(extra):\n    return []", "extra"),
    "wrong factory": (GOOD + "@hookimpl\ndef trunnion_engines():\n    return [EnginePlugin(name='foo', factory='a.b')]",
                      "factory must be 'module:callable'"),
    "wrong api version": (
        GOOD + "@hookimpl\ndef trunnion_engines():\n"
        "    return [EnginePlugin(name='foo', factory='a:b', api_version=None)]",
        "TypeError",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FAILURES)
def test_failed(neighbour, case):
    source, reason = FAILURES[case]
    neighbour.add("trunnion-foo", {"foo": "foo_mod"}, foo_mod=source)
    error = check_refusal(neighbour.registry(), "foo", PluginFailed, PluginState.FAILED, "trunnion-foo 1.0", reason)
    assert error.__cause__ is not None


def test_one_module_for_two_entry_points(site):
    site.engine("trunnion-foo", name="foo", module="foo_mod")
    site.add("trunnion-bar", {"bar": "foo_mod"})
    first, second = sorted(site.registry().plugins(), key=lambda record: record.entry_point)
    assert (first.entry_point, first.state) == ("bar", PluginState.OK)
    assert (second.entry_point, second.state) == ("foo", PluginState.FAILED)
    assert "registered twice; give each entry point its own module" in second.reason
    assert site.registry().engine("foo")


def test_an_entry_point_that_registers_nothing_is_still_seen(site):
    site.add("trunnion-foo", {"foo": "foo_mod"}, foo_mod=GOOD + "@hookimpl\ndef trunnion_engines():\n    return []")
    registry = site.registry()
    [record] = registry.plugins()
    assert (record.name, record.kind, record.state, record.reason) == ("foo", "", PluginState.OK, "registers nothing")
    with pytest.raises(PluginNotFound, match=r"no engine plugin is called 'foo'; there are: none$"):
        registry.engine("foo")


def test_a_distribution_name_leads_to_its_failure(site):
    site.add("trunnion-foo", {"entry": "foo_mod"}, foo_mod="1/0")
    with pytest.raises(PluginFailed, match="ZeroDivisionError"):
        site.registry().engine("foo")


def test_unknown_names_get_a_suggestion(neighbour):
    neighbour.add("trunnion-foo", {"foo": "foo_mod"}, foo_mod="1/0")
    with pytest.raises(PluginNotFound) as caught:
        neighbour.registry().engine("goood")
    assert "did you mean 'good'? there are: good; not loaded: foo (failed)" in caught.value.message
    assert caught.value.details == {"kind": "engine", "name": "goood"}


def test_a_factory_is_imported_only_when_asked_for(site):
    site.engine("trunnion-foo", name="foo")
    registry = site.registry()
    with pytest.raises(PluginFailed, match=r"cannot be imported \(trunnion_foo:Nothing\): AttributeError"):
        registry.build_engine(registry.engine_spec("foo"))


FACTORY = (
    GOOD
    + """
from trunnion import PluginConfig
from pydantic import Field, model_validator
class Config(PluginConfig):
    speed: int = Field(1, description="x")
    limit: float = Field(2.0, gt=0, description="y")
    @model_validator(mode="after")
    def both(self):
        if self.speed == 13:
            raise ValueError("13 never works")
        return self
def make(model, config):
    if config.speed == 7:
        raise RuntimeError("broken inside")
    return (model, config.speed)
@hookimpl
def trunnion_engines():
    return [EnginePlugin(name="foo", factory="foo_mod:make", config=Config)]
"""
)


@pytest.fixture
def foo(site):
    site.add("trunnion-foo", {"foo": "foo_mod"}, version="1.4.2", foo_mod=FACTORY)
    return site.registry()


def test_engine_specs(foo):
    spec = foo.engine_spec("foo", "m", {"speed": 3})
    assert spec == t.EngineSpec(engine="foo", model="m", config={"speed": 3}, plugin_version="1.4.2")
    assert foo.build_engine(t.EngineSpec.from_json(spec.to_json())) == ("m", 3)
    assert foo.resources(spec) == t.Resources()


@pytest.mark.parametrize(
    ("config", "param", "message"),
    [
        ({"sped": 1}, "sped", "has no setting 'sped'; did you mean 'speed'?"),
        ({"zzz": 1}, "zzz", "settings: speed, limit"),
        ({"limit": 0}, "limit", "setting 'limit'"),
        ({"speed": 13}, None, "engine 'foo': 13 never works"),
    ],
)
def test_a_wrong_setting_is_named(foo, config, param, message):
    with pytest.raises(ConfigError) as caught:
        foo.engine_spec("foo", "m", config)
    assert caught.value.param == param
    assert message in caught.value.message


def test_a_missing_model_is_named(foo):
    with pytest.raises(ConfigError, match="needs a model"):
        foo.engine_spec("foo")


def test_a_factory_that_raises_is_a_failed_plugin(foo):
    with pytest.raises(PluginFailed, match=r"cannot be built .*RuntimeError: broken inside") as caught:
        foo.build_engine(foo.engine_spec("foo", "m", {"speed": 7}))
    assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.parametrize("version", ["1.0.0", "1.9", ""])
def test_a_compatible_plugin_version_is_taken(foo, version):
    assert foo.build_engine(t.EngineSpec(engine="foo", model="m", plugin_version=version))


@pytest.mark.parametrize("version", ["2.0", "0.9.1"])
def test_another_plugin_version_is_refused(foo, version):
    with pytest.raises(PluginIncompatible, match=f"version {version}, but this process has 1.4.2"):
        foo.build_engine(t.EngineSpec(engine="foo", model="m", plugin_version=version))


def test_before_one_the_minor_version_counts():
    from trunnion._versions import release, series

    assert release("v0.29.0+cpu") == (0, 29) == release("0.29")
    assert release("10.0.0") == (10,)
    assert release("nonsense") == ()
    assert series("0.2.9") == (0, 2) != series("0.3.0")
    assert series("3.1") == series("3.9.4") == (3,)


def test_the_process_registry_is_loaded_once_per_policy():
    one = t.get_registry(t.PluginPolicy(block=frozenset({"vllm"})))
    assert one is t.get_registry(t.PluginPolicy(block=frozenset({"vllm"})))
    assert one is not t.get_registry()


def test_a_plugin_that_asks_for_the_registry_fails_instead_of_hanging(site):
    source = "import trunnion\ntrunnion.get_registry(trunnion.PluginPolicy(block=frozenset({'unheard-of'})))"
    site.add("trunnion-foo", {"foo": "foo_mod"}, foo_mod=source)
    registry = t.get_registry(t.PluginPolicy(block=frozenset({"unheard-of"})))
    with pytest.raises(PluginError, match="being loaded"):
        registry.engine("foo")


STAGES = [
    {"consumes": "text"},
    {"consumes": "text", "produces": "text"},
    {"shape": "stream", "consumes": "text", "produces": "token_ids"},
    {"shape": "strem"},
    {"cost": -1},
    {"factory": "nonsense"},
    {"name": ""},
]


@pytest.mark.parametrize("fields", STAGES)
def test_a_stage_that_cannot_work_is_refused_where_it_is_declared(fields):
    with pytest.raises(ValueError, match=r"stage 's'|plugin 's'|needs a name"):
        t.StagePlugin(**{"name": "s", "factory": "a:b", **fields})
