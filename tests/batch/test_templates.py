"""Templates make columns out of rows, and what is wrong with one is told by its place."""

import pickle

import pytest

from trunnion.errors import ConfigError, InvalidArgument
from trunnion_batch.templates import RowTemplate


def test_text_lists_and_objects_are_rendered():
    template = RowTemplate(
        {
            "messages": [{"role": "user", "content": "What is the capital of {{ land }}?"}],
            "sampling_params": {"max_tokens": "{{ count }}", "stop": ["{{ land[0] }}"]},
            "shout": "{% if loud %}{{ land | upper }}{% else %}{{ land }}{% endif %}",
            "fixed": 3,
            "plain": "no template",
        }
    )
    for made in (template, pickle.loads(pickle.dumps(template))):
        assert made({"land": "France", "count": 7, "loud": True}) == {
            "messages": [{"role": "user", "content": "What is the capital of France?"}],
            "sampling_params": {"max_tokens": 7, "stop": ["F"]},
            "shout": "FRANCE",
            "fixed": 3,
            "plain": "no template",
        }


def test_a_column_alone_is_taken_as_it_is():
    value = [{"role": "user", "content": "hi"}]
    assert RowTemplate({"messages": "{{ chat }}"})({"chat": value})["messages"] is value


@pytest.mark.parametrize("template", ["{{ nobody }}", "to {{ nobody }}", "{{ nobody.name }}"])
def test_a_row_without_the_column_fails_alone(template):
    made = RowTemplate({"messages": [{"content": template}]})
    with pytest.raises(InvalidArgument, match="nobody") as caught:
        made({"a": 1})
    assert caught.value.param == "preprocess.messages[0].content"


def test_a_null_inside_a_text_is_an_error_of_the_row():
    template = RowTemplate({"prompt": "Capital of {{ land }}?", "land": "{{ land }}"})
    with pytest.raises(InvalidArgument, match="a value is null") as caught:
        template({"land": None})
    assert caught.value.param == "preprocess.prompt"
    meant = RowTemplate({"prompt": '{{ land or "nowhere" }}{% if land %}!{% endif %}', "land": "{{ land }}"})
    assert meant({"land": None}) == {"prompt": "nowhere", "land": None}


def test_a_template_that_is_none_is_refused_at_once():
    with pytest.raises(ConfigError, match="no valid Jinja template") as caught:
        RowTemplate({"answer": {"a": ["{{ land"]}}, where="postprocess")
    assert caught.value.param == "postprocess.answer.a[0]"


def test_templates_reach_nothing_but_the_row():
    for attack in ("{{ ''.__class__.__mro__ }}", "{{ land.__class__.__base__.__subclasses__() }}"):
        with pytest.raises(InvalidArgument, match="unsafe"):
            RowTemplate({"prompt": "x " + attack})({"land": "France"})
