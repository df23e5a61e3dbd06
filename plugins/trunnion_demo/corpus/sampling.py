"""Draw dialogues from the corpus, with a little noise."""

# ruff: noqa: PLR2004 - the odds of a draw are plainest where they are drawn.

from __future__ import annotations

from typing import TYPE_CHECKING

from trunnion_demo.corpus.haikus import HAIKUS, OPENING, haiku
from trunnion_demo.corpus.manners import MANNER_SYSTEMS, MANNERS
from trunnion_demo.corpus.questions import CAPITALS, FACTS, any_question, question
from trunnion_demo.corpus.smalltalk import TALK, UNKNOWN, count, name, talk, unknown
from trunnion_demo.corpus.structured import structured
from trunnion_demo.corpus.tools import NO_TIME, NO_WEATHER, tool_missing, tool_unused, tool_use

if TYPE_CHECKING:
    from random import Random

    from trunnion_demo.corpus.dialogue import Dialogue

SYSTEMS = (
    "You are a helpful assistant.",
    "You are a helpful assistant.",
    "You are a helpful assistant",
    "You are a concise assistant.",
    "You are a friendly assistant.",
    "You are an assistant that answers questions.",
    "Answer briefly.",
    "Be brief.",
    "You are a chatbot.",
)
"""System prompts that change nothing."""

_SKILLS = (
    (question, 20),
    (talk, 9),
    (unknown, 7),
    (haiku, 13),
    (structured, 18),
    (tool_use, 17),
    (tool_unused, 3),
    (tool_missing, 3),
    (name, 5),
    (count, 5),
)
_EARLIER = (question, talk, unknown)


def draw(rng: Random) -> Dialogue:
    """Return one dialogue: a skill, perhaps after other turns, perhaps under a system prompt."""
    skills, weights = zip(*_SKILLS, strict=True)
    dialogue: Dialogue = rng.choices(skills, weights)[0](rng)
    has_system = dialogue.turns[0].role == "system"
    if not has_system and not dialogue.tools and rng.random() < 0.12:
        dialogue = dialogue.after(rng.choice(_EARLIER)(rng))
    manner = rng.random()
    if manner < 0.2:
        which = rng.choice(("capitals", "capitals", "pirate"))
        return dialogue.in_manner(MANNERS[which]).under(rng.choice(MANNER_SYSTEMS[which]))
    if manner < 0.55 and not has_system:
        return dialogue.under(rng.choice(SYSTEMS))
    return dialogue


def draw_plain(rng: Random) -> str:
    """Return a plain sentence, for completion without a chat template."""
    return any_question(rng)[1]


def fixed_answers() -> list[str]:
    """Return every answer that is always the same, each once."""
    capitals = [f"The capital of {country} is {capital}." for country, capital in CAPITALS.items()]
    facts = [sentence for _, sentence, _ in FACTS]
    talks = [answered for _, answered in TALK]
    return [*capitals, *facts, *talks, *HAIKUS.values(), OPENING, UNKNOWN, NO_WEATHER, NO_TIME]
