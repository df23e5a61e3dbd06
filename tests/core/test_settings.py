"""A key that is no setting is refused with the nearest one that is, wherever the settings stand."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, Field, ValidationError

from trunnion.plugin import PluginConfig
from trunnion.settings import Settings


class Inner(Settings):
    row_retries: int = Field(default=1, ge=0)


class Outer(PluginConfig):
    batch_size: int = Field(default=1, ge=1)
    recovery: Inner = Inner()
    models: dict[str, Inner] = Field(default_factory=dict)


class Sibling(BaseModel):
    one: Inner | None = None


def told(model: type[BaseModel], given: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(given)
    return {".".join(map(str, one["loc"])): one["msg"] for one in caught.value.errors()}


def test_a_key_that_is_near_a_setting_is_told_beside_it() -> None:
    assert told(Outer, {"batch_sizes": 2}) == {"batch_sizes": "there is no such setting; did you mean 'batch_size'?"}


def test_a_key_that_is_near_nothing_is_told_with_all_there_are() -> None:
    said = "there is no such setting; there are: batch_size, recovery, models"
    assert told(Outer, {"xyz": 2}) == {"xyz": said}


def test_everything_wrong_is_told_at_its_place() -> None:
    near = "there is no such setting; did you mean 'row_retries'?"
    given = {
        "batch_sizes": 2,
        "batch_size": 0,
        "recovery": {"row_retry": 1},
        "models": {"judge": {"rows_retry": 1, "row_retries": -1}},
    }
    assert told(Outer, given) == {
        "batch_sizes": "there is no such setting; did you mean 'batch_size'?",
        "batch_size": "Input should be greater than or equal to 1",
        "recovery.row_retry": near,
        "models.judge.rows_retry": near,
        "models.judge.row_retries": "Input should be greater than or equal to 0",
    }


def test_other_errors_are_pydantics_own() -> None:
    with pytest.raises(ValidationError) as caught:
        Outer(batch_size=0)
    assert caught.value.errors()[0]["ctx"] == {"ge": 1}


def test_settings_in_a_model_of_another_kind_are_told_too() -> None:
    assert told(Sibling, {"one": {"row_retry": 1}})["one.row_retry"].endswith("did you mean 'row_retries'?")


def test_settings_stay_what_they_are() -> None:
    given = Outer(recovery=Inner(row_retries=3))
    assert Outer.model_validate(given) is given
    with pytest.raises(ValidationError, match="frozen"):
        given.batch_size = 3  # type: ignore[misc]
