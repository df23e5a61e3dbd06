"""Adapters are found in folders, near and far, and nothing outside of them is."""

import pytest

from trunnion.adapter_folders import AdapterFolders, check_name
from trunnion.adapter_setting import LoraSettings, lazily, with_room
from trunnion.errors import ConfigError, InvalidArgument
from trunnion.registry import get_registry


def adapter(folder, name, config="{}"):
    (folder / name).mkdir(parents=True)
    (folder / name / "adapter_config.json").write_text(config)


@pytest.fixture
def folder(tmp_path):
    for name in ("one", "two"):
        adapter(tmp_path / "here", name)
    return tmp_path / "here"


def test_what_is_no_adapter_is_not_found(folder):
    (folder / "empty").mkdir()
    (folder / "file").write_text("")
    adapter(folder, ".hidden")
    adapter(folder, "bad name")
    adapter(folder.parent, "outside")
    (folder / "link").symlink_to(folder.parent / "outside")
    assert AdapterFolders([str(folder)]).scan() == {name: str(folder / name) for name in ("one", "two")}


def test_the_first_folder_wins(folder):
    adapter(folder.parent / "there", "two")
    adapter(folder.parent / "there", "three")
    found = AdapterFolders([str(folder), str(folder.parent / "there")]).scan()
    assert found["two"] == str(folder / "two")
    assert set(found) == {"one", "two", "three"}


def test_far_away():
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    try:
        memory.pipe("/bucket/adapters/far/adapter_config.json", b"{}")
        memory.pipe("/bucket/adapters/none/readme", b"")
        folders = AdapterFolders(["memory://bucket/adapters/"])
        assert folders.scan() == {"far": "memory://bucket/adapters/far"}
        assert folders.confine("memory://bucket/adapters/far") == "memory://bucket/adapters/far"
        for path in ("memory://bucket/other", "memory://bucket/adapters/../other", "memory://bucket/adapters", "/etc"):
            with pytest.raises(InvalidArgument, match="none of the folders"):
                folders.confine(path)
        with pytest.raises(InvalidArgument):
            folders.confine("memory://bucket/adapters/%2e%2e/other")
    finally:
        memory.rm("/bucket", recursive=True)


def test_a_folder_that_cannot_be_listed_does_not_hide_the_others(folder, caplog):
    folders = AdapterFolders([str(folder), "nosuchscheme://x/y"])
    assert set(folders.scan()) == {"one", "two"}
    assert "nosuchscheme://x/y cannot be listed" in caplog.text


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="nowhere"):
        AdapterFolders([str(tmp_path / "nowhere")])


@pytest.mark.parametrize("path", ["one", "./one", "{0}/one", "{0}/sub/../one"])
def test_paths_inside(folder, path):
    assert AdapterFolders([str(folder)]).confine(path.format(folder)) == str(folder / "one")


@pytest.mark.parametrize("path", ["", ".", "..", "{0}", "{0}/..", "{0}x", "/", "~", "one/../..", "s3://x/one"])
def test_paths_outside(folder, path):
    adapter(folder.parent, "herex")
    with pytest.raises(InvalidArgument) as caught:
        AdapterFolders([str(folder)]).confine(path.format(folder))
    assert caught.value.param == "lora_path"


@pytest.mark.parametrize("name", ["a", "A-1_b.c", "9" * 128])
def test_names_that_do(name):
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", ".a", "a/b", "a:b", "a b", "ä", "9" * 129])
def test_names_that_do_not(name):
    with pytest.raises(InvalidArgument):
        check_name(name)


@pytest.mark.parametrize(
    ("settings", "start", "later"),
    [
        ({}, "abc", ""),
        ({"max_loras": 3}, "abc", ""),
        ({"max_loras": 2}, "", "abc"),
        ({"folders": ("x",)}, "abc", ""),
        ({"folders": ("x",), "max_loras": 1}, "", "abc"),
    ],
)
def test_declared_adapters_are_loaded_at_start_where_all_have_room(settings, start, later):
    names = dict.fromkeys("abc", "/path")
    assert tuple(map(list, lazily(names, LoraSettings(**settings)))) == (list(start), list(later))


def test_engines_are_given_room():
    registry = get_registry()
    sim, openai = registry.engine("sim"), registry.engine("openai")
    assert with_room(sim, {}, LoraSettings()) == {}
    assert with_room(sim, {}, LoraSettings(folders=("x",))) == {"max_loras": 4}
    assert with_room(sim, {"max_loras": 9}, LoraSettings(max_loras=2)) == {"max_loras": 9}
    with pytest.raises(ConfigError, match="loads no adapters"):
        with_room(openai, {}, LoraSettings(max_loras=2))
