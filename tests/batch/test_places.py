"""A job's files are kept apart, and none that was there is lost."""

import json

import pytest

from trunnion.errors import ConfigError
from trunnion_batch.places import check_apart, check_summary, put_in_place


def test_files_of_their_own_are_fine(tmp_path):
    check_apart([("INPUT", "-"), ("OUTPUT", "-"), ("--journal", None), ("--summary", ""), ("--cache", "s3://a/b")])
    check_apart([("OUTPUT", tmp_path / "a"), ("--journal", "s3://a/c"), ("--cache", "s3://a/b")])


@pytest.mark.parametrize(("first", "second"), [
    ("{0}/a", "{0}/./a"), ("{0}/a", "file://{0}/a"), ("{0}/link", "{0}/a"), ("s3://a/b", "s3://a/b/"),
])  # fmt: skip
def test_two_names_of_one_place_are_refused(tmp_path, first, second):
    (tmp_path / "a").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with pytest.raises(ConfigError, match=r"--cache and --journal are both") as caught:
        check_apart([("--journal", first.format(tmp_path)), ("--cache", second.format(tmp_path))])
    assert caught.value.param == "--cache"


def test_an_account_is_replaced_and_nothing_else(tmp_path):
    path = tmp_path / "s.json"
    check_summary(None, overwrite=False)
    check_summary(path, overwrite=False)
    path.write_text(json.dumps({"rows_in": 3}))
    check_summary(path, overwrite=False)
    for text in ("[1]", "{}", "no json"):
        path.write_text(text)
        with pytest.raises(ConfigError, match="no account of a run"):
            check_summary(path, overwrite=False)
        check_summary(path, overwrite=True)
    for place, said in ((tmp_path, "is a folder"), (tmp_path / "no" / "s.json", "does not exist")):
        with pytest.raises(ConfigError, match=said):
            check_summary(place, overwrite=True)


@pytest.mark.parametrize("links", [True, False])
def test_a_name_that_was_taken_meanwhile_is_left_alone(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr("os.link", lambda *_: (_ for _ in ()).throw(PermissionError()))
    target = tmp_path / "out.jsonl"
    places = []
    for text in ("first", "second", "third"):
        made = tmp_path / "made"
        made.write_text(text)
        places.append(put_in_place(made, target, overwrite=False).name)
        assert not made.exists()
    assert places == ["out.jsonl", "out.2.jsonl", "out.3.jsonl"]
    assert [(tmp_path / name).read_text() for name in places] == ["first", "second", "third"]
    made.write_text("fourth")
    assert put_in_place(made, target, overwrite=True) == target
    assert target.read_text() == "fourth"
