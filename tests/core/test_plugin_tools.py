"""What engine plugins share."""

from trunnion.plugin_tools import context_overflow, fields_in_source, first_unknown


def test_an_overflow_says_what_would_fit():
    error = context_overflow(90, 20, 100)
    assert "at most 10 tokens" in error.message
    assert error.param == "max_tokens"
    assert context_overflow(120, None, 100).param == "prompt"


def test_fields_are_read_from_the_source_alone():
    assert {"feature", "support"}.isdisjoint(fields_in_source("trunnion", "spec.py", ("EngineSpec",)))
    assert fields_in_source("trunnion", "spec.py", ("EngineSpec",)) == {"engine", "model", "config", "plugin_version"}
    assert fields_in_source("no_such_package", "a.py", ("A",)) == frozenset()
    assert fields_in_source("trunnion", "no_such_file.py", ("A",)) == frozenset()


def test_a_wrong_name_is_answered_with_the_nearest():
    wrong = {"known": ["block_size", "dtype"], "what": "Foo has no field", "otherwise": "see the manual"}
    assert (
        first_unknown(["dtype", "block_sise"], **wrong) == "Foo has no field 'block_sise'; did you mean 'block_size'?"
    )
    assert first_unknown(["zzz"], **wrong) == "Foo has no field 'zzz'; see the manual"
    assert first_unknown(["dtype"], **wrong) is None
