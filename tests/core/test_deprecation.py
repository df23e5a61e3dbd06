"""What is deprecated of the plugin API warns the plugin, works on, and is told to whoever asks the doctor."""

import dataclasses
import importlib.metadata
import warnings
from types import SimpleNamespace

import pytest

import trunnion as t
from trunnion import loader
from trunnion.deprecation import PluginApiDeprecated, TrunnionDeprecationWarning, deprecated, deprecated_field
from trunnion.hookspecs import hookspec

OLD_HOOK = deprecated("hook trunnion_routers", since=(1, 4), instead="implement trunnion_engines")
OLD_ARGUMENT = deprecated("argument here", since=(1, 4), instead="leave it out")


class Specs:
    """What a later version of the hook specifications might be."""

    @hookspec(warn_on_impl=OLD_HOOK)
    def trunnion_routers(self):
        """A hook that is to go."""

    @hookspec(warn_on_impl_args={"here": OLD_ARGUMENT})
    def trunnion_engines(self, here):
        """A hook with an argument that is to go."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LaterPlugin(t.EnginePlugin):
    """What a later version of EnginePlugin might be."""

    colour: str = dataclasses.field(
        default="", metadata=deprecated_field("colour", since=(1, 3), instead="set summary")
    )
    shapes: list = dataclasses.field(
        default_factory=list, metadata=deprecated_field("shapes", since=(1, 3), instead="set summary")
    )


@pytest.fixture
def load(site):
    """Install a module as distribution trunnion-foo and load it under the later specifications."""

    def loaded(source, specs=Specs):
        site.add("trunnion-foo", {"foo": "foo_mod"}, foo_mod="from trunnion import *\n" + source)
        found = importlib.metadata.distributions(path=site._paths)
        entry_points = [ep for dist in found for ep in dist.entry_points]
        return loader.load(entry_points, t.PluginPolicy(), specs=specs, arguments={"here": "x"})

    return loaded


ROUTER = "@hookimpl\ndef trunnion_routers():\n    return [RouterPlugin(name='r', factory='a:b')]\n"
TAKES = "@hookimpl\ndef trunnion_engines(here):\n    return [EnginePlugin(name='e' + here, factory='a:b')]\n"
TAKES_NOT = "@hookimpl\ndef trunnion_engines():\n    return [EnginePlugin(name='e', factory='a:b')]\n"


def test_the_message_says_since_when_until_when_and_what_to_do():
    assert str(OLD_HOOK) == (
        "hook trunnion_routers is deprecated since plugin API 1.4 and goes with 2.0; implement trunnion_engines"
    )
    assert issubclass(PluginApiDeprecated, TrunnionDeprecationWarning)
    assert issubclass(TrunnionDeprecationWarning, DeprecationWarning)


def test_a_deprecated_hook_warns_where_it_is_implemented_and_works(load):
    with pytest.warns(PluginApiDeprecated, match="implement trunnion_engines") as caught:
        [record] = load(ROUTER)
    assert (record.state, record.name, record.deprecated) == (t.PluginState.OK, "r", (str(OLD_HOOK),))
    assert caught[0].filename.endswith("foo_mod.py")


def test_a_deprecated_argument_warns_those_that_take_it_and_is_given(load):
    with pytest.warns(PluginApiDeprecated, match="leave it out"):
        [record] = load(TAKES)
    assert (record.state, record.name, record.deprecated) == (t.PluginState.OK, "ex", (str(OLD_ARGUMENT),))


def test_whoever_does_not_use_it_hears_nothing(load):
    with warnings.catch_warnings():
        warnings.simplefilter("error", TrunnionDeprecationWarning)
        [record] = load(TAKES_NOT)
    assert (record.state, record.deprecated) == (t.PluginState.OK, ())


@pytest.mark.parametrize(
    ("fields", "named"), [("colour='red'", ["colour"]), ("shapes=[1]", ["shapes"]), ("", []), ("shapes=[]", [])]
)
def test_a_deprecated_field_warns_if_it_is_set(load, monkeypatch, fields, named):
    monkeypatch.setattr(t, "EnginePlugin", LaterPlugin)
    source = f"@hookimpl\ndef trunnion_engines():\n    return [EnginePlugin(name='e', factory='a:b', {fields})]\n"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        [record] = load(source)
    wanted = [f"field {name!r} is deprecated since plugin API 1.3 and goes with 2.0; set summary" for name in named]
    assert [str(one.message) for one in caught if one.category is PluginApiDeprecated] == wanted
    assert all(one.filename.endswith("foo_mod.py") for one in caught)
    assert record.deprecated == tuple(f"engine 'e': {sentence}" for sentence in wanted)
    assert record.state is t.PluginState.OK


def test_a_warning_made_an_error_fails_this_plugin_alone(load, site):
    site.engine("trunnion-good", name="good")
    with warnings.catch_warnings():
        warnings.simplefilter("error", TrunnionDeprecationWarning)
        records = {record.name: record for record in load(ROUTER)}
    assert {name: record.state for name, record in records.items()} == {
        "foo": t.PluginState.FAILED, "good": t.PluginState.OK,
    }  # fmt: skip
    assert "implement trunnion_engines" in records["foo"].reason


def test_nothing_of_todays_api_is_deprecated():
    """Whoever deprecates something lists it in docs/plugin-api.md and changes this test."""
    records = t.Registry(t.PluginPolicy()).plugins()
    assert {record.name: record.deprecated for record in records if record.deprecated} == {}


def test_the_doctor_tells_of_it(monkeypatch, capsys):
    from trunnion_cli import plugins

    record = loader.PluginRecord(
        name="e", kind="engine", entry_point="e", module="m", distribution="trunnion-foo", version="1.0",
        deprecated=(str(OLD_HOOK),),
    )  # fmt: skip
    monkeypatch.setattr(plugins, "registry", lambda: SimpleNamespace(plugins=lambda: [record]))
    plugins.doctor()
    said = capsys.readouterr().out
    assert "deprecated: engine e (from trunnion-foo 1.0)" in said
    assert str(OLD_HOOK) in said


LATER = {
    "a name": "from trunnion import SomethingLater\n",
    "a field": "@hookimpl\ndef trunnion_engines():\n    return [EnginePlugin(name='foo', factory='a:b', later=1)]\n",
}


@pytest.mark.parametrize("case", LATER)
def test_what_a_later_version_brought_fails_with_the_advice_to_upgrade(load, case):
    [record] = load(LATER[case], specs=loader.hookspecs)
    assert record.state is t.PluginState.FAILED
    here = ".".join(map(str, t.API_VERSION))
    assert f"this is plugin API {here}: if the plugin was written for a later one, upgrade trunnion" in record.reason


def test_a_hook_of_a_later_version_may_be_optional(load):
    later = "@hookimpl(optionalhook=True)\ndef trunnion_later():\n    return []\n"
    [record] = load(later + TAKES_NOT, specs=loader.hookspecs)
    assert (record.name, record.state) == ("e", t.PluginState.OK)


def test_a_plugin_that_states_nothing_was_written_for_the_first_version():
    for plugin in (t.EnginePlugin, t.StagePlugin, t.RouterPlugin, t.HooksPlugin, t.SourcePlugin):
        fields = {field.name: field.default for field in dataclasses.fields(plugin)}
        assert fields["api_version"] == (1, 0)
