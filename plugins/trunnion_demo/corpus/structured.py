"""Answer in JSON, on one line, as `json.dumps` writes it."""

# ruff: noqa: PLR2004 - the odds of a draw are plainest where they are drawn.

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from trunnion_demo.corpus.dialogue import Dialogue, exchange
from trunnion_demo.corpus.questions import CAPITALS, any_question
from trunnion_demo.corpus.words import city, person

if TYPE_CHECKING:
    from random import Random

    from trunnion_demo.corpus.dialogue import JsonValue

VALUES: dict[str, JsonValue] = {
    "name": "Alice",
    "age": 30,
    "city": "Paris",
    "country": "France",
    "color": "blue",
    "animal": "cat",
    "food": "bread",
    "job": "teacher",
    "email": "alice@example.com",
    "happy": True,
    "score": 7,
    "title": "The Old Barn",
    "year": 2024,
    "price": 10,
}
"""What the model says for each key when it may invent the value."""

SYSTEMS = (
    "Answer in JSON.",
    "You answer in JSON.",
    "You are a helpful assistant that answers in JSON.",
    "Respond with JSON only.",
    "Always answer in JSON",
)

_INVENT = (
    "Give me a person as JSON with keys {}.",
    "Answer in JSON with keys {}.",
    "Write JSON with the keys {}.",
    "Return a JSON object with keys {}.",
    "Make up an example as JSON with keys {}.",
    "Describe someone as JSON with keys {}.",
    "JSON with keys {}",
)

_SUFFIXES = (" Answer in JSON.", " Reply in JSON.", " As JSON, please.", " Respond with JSON only.")


def _listed(keys: list[str]) -> str:
    """Return the keys as English lists them."""
    return keys[0] if len(keys) == 1 else f"{', '.join(keys[:-1])} and {keys[-1]}"


def _invented(rng: Random) -> Dialogue:
    keys = rng.sample(sorted(VALUES), rng.randint(1, 4))
    if rng.random() < 0.3:
        keys = ["name", "age"] if rng.random() < 0.6 else ["name", "age", "city"]
    answer = json.dumps({key: VALUES[key] for key in keys})
    return exchange(rng.choice(_INVENT).format(_listed(keys)), answer, prose=False)


def _extracted(rng: Random) -> Dialogue:
    who, age, where = person(rng), rng.randint(1, 99), city(rng)
    if rng.random() < 0.5:
        text, found = f"{who} is {age} years old.", {"name": who, "age": age}
    else:
        text = f"{who} is {age} years old and lives in {where}."
        found = {"name": who, "age": age, "city": where}
    asked = rng.choice(
        (
            f"Extract {_listed(list(found))} as JSON: {text}",
            f"{text} Give me this as JSON with keys {_listed(list(found))}.",
        )
    )
    return exchange(asked, json.dumps(found), prose=False)


def _answered(rng: Random) -> Dialogue:
    if rng.random() < 0.3:
        country, capital = rng.choice(sorted(CAPITALS.items()))
        return exchange(
            f"What is the capital of {country}? Answer as JSON with keys country and capital.",
            json.dumps({"country": country, "capital": capital}),
            prose=False,
        )
    asked, _, word = any_question(rng)
    answer = json.dumps({"answer": int(word) if word.isdigit() else word})
    if rng.random() < 0.5:
        return exchange(asked, answer, prose=False).under(rng.choice(SYSTEMS))
    return exchange(asked + rng.choice(_SUFFIXES), answer, prose=False)


def structured(rng: Random) -> Dialogue:
    """Return a request for JSON and one line of JSON."""
    return rng.choices((_invented, _extracted, _answered), (4, 3, 4))[0](rng)
