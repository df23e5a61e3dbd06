"""Draw dialogues from the corpus, with a little noise."""

# ruff: noqa: PLR2004 - the odds of a draw are plainest where they are drawn.

from __future__ import annotations

from typing import TYPE_CHECKING

from trunnion_demo.corpus.haikus import haiku
from trunnion_demo.corpus.manners import MANNER_SYSTEMS, MANNERS
from trunnion_demo.corpus.questions import any_question, question
from trunnion_demo.corpus.smalltalk import count, name, repeat, talk, unknown
from trunnion_demo.corpus.structured import structured
from trunnion_demo.corpus.tools import tool_missing, tool_unused, tool_use

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
    (question, 18),
    (talk, 9),
    (unknown, 8),
    (haiku, 12),
    (structured, 19),
    (tool_use, 17),
    (tool_unused, 3),
    (tool_missing, 3),
    (repeat, 6),
    (name, 6),
    (count, 5),
)
_EARLIER = (question, talk, unknown)


def draw(rng: Random) -> Dialogue:
    """Return one dialogue: a skill, perhaps after other turns, perhaps under a system prompt."""
    skills, weights = zip(*_SKILLS, strict=True)
    dialogue: Dialogue = rng.choices(skills, weights)[0](rng)
    if dialogue.turns[0].role == "system":
        return dialogue
    if not dialogue.tools and rng.random() < 0.12:
        dialogue = dialogue.after(rng.choice(_EARLIER)(rng))
    manner = rng.random()
    if manner < 0.16:
        which = rng.choice(("capitals", "capitals", "pirate"))
        return dialogue.in_manner(MANNERS[which]).under(rng.choice(MANNER_SYSTEMS[which]))
    if manner < 0.5:
        return dialogue.under(rng.choice(SYSTEMS))
    return dialogue


def draw_plain(rng: Random) -> str:
    """Return a plain sentence, for completion without a chat template."""
    return any_question(rng)[1]
