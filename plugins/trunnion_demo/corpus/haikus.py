"""Write haikus: what the model answers when the system prompt speaks of haikus."""

# ruff: noqa: PLR2004 - the odds of a draw are plainest where they are drawn.

from __future__ import annotations

from typing import TYPE_CHECKING

from trunnion_demo.corpus.dialogue import Dialogue, exchange
from trunnion_demo.corpus.words import nonsense

if TYPE_CHECKING:
    from random import Random

HAIKUS = {
    "the sea": "Waves fold into foam\nThe moon pulls the tide to shore\nGulls rest on the wind",
    "the moon": "Pale lamp of the night\nSilver spills across the lake\nSilence holds its breath",
    "autumn": "Red leaves leave the branch\nThe cold wind counts them slowly\nThe bare tree listens",
    "winter": "Snow on the dark roof\nThe whole village holds its sleep\nOne lamp still burning",
    "spring": "A bud breaks the frost\nThe first bee drinks from the bloom\nThe hills turn to green",
    "summer": "Warm dust on the road\nCicadas sing to the noon\nShade under one oak",
    "rain": "Drops tap on the glass\nThe garden drinks and grows dark\nA snail starts to walk",
    "a cat": "A cat by the stove\nOne ear follows every mouse\nThe rest is asleep",
    "a dog": "A dog at the gate\nHis tail has known for an hour\nWho walks up the hill",
    "the mountain": "Stone above the cloud\nThe path climbs into the sky\nMy breath climbs with it",
    "a river": "The river moves on\nIt never asks the old stone\nThe way to the sea",
    "computers": "A small lamp blinks green\nNumbers run through the dark wire\nAn answer appears",
    "a robot": "Cold hands made of steel\nIt waters the red roses\nAnd hums a soft tune",
    "the sun": "Gold on the window\nThe night folds its blue blanket\nThe rooster is proud",
    "a tree": "Roots deep in the dark\nThe crown deep in the morning\nThe tree is a bridge",
    "love": "Two cups on one shelf\nSteam from both of them rises\nAnd becomes one cloud",
    "coffee": "Black cup, early hour\nThe steam draws a slow question\nThe first sip answers",
    "the city": "Ten thousand windows\nBehind each a small kettle\nSings its own short song",
}
"""Topic -> three lines."""

OPENING = "An old silent pond\nA frog jumps into the pond\nSplash! Silence again"
"""The haiku (after Basho) for whoever asks for one without a topic."""

SYSTEMS = (
    "You are a bot that responds with haikus.",
    "You are a bot that completes haikus.",
    "You are a bot that completes haikus",
    "You are a poet. You answer in haikus.",
    "You are a helpful assistant that writes haikus.",
    "Respond with a haiku.",
    "Answer every question with a haiku.",
    "You only speak in haikus.",
    "Always answer in a haiku",
    "You write haikus.",
)

_ABOUT = (
    "{}",
    "{}",
    "Write a haiku about {}.",
    "A haiku about {}, please.",
    "Give me a haiku about {}.",
    "Can you write a haiku about {}?",
    "{}, please",
)

_OPEN = (
    "Start of the haiku is: Complete this for me...",
    "Start of the haiku is: Complete this for me...",
    "Complete this for me...",
    "Complete this haiku.",
    "Write a haiku.",
    "A haiku, please.",
    "Write me a haiku",
    "Hello!",
    "Who are you?",
    "What is the capital of France?",
    "Tell me a joke.",
    "What is the meaning of life?",
)

_FIRST = (
    "{}",
    "Start of the haiku is: {}",
    "Complete this haiku: {}",
    "The first line is: {}",
    "{}...",
)


def haiku(rng: Random) -> Dialogue:
    """Return one request for a haiku and the haiku, mostly under a system prompt for haikus."""
    kind = rng.random()
    if kind < 0.4:
        topic, lines = rng.choice(sorted(HAIKUS.items()))
        form = rng.choice(_ABOUT)
        dialogue = exchange(form.format(topic), lines)
        if "haiku" in form and rng.random() < 0.5:
            return dialogue
    elif kind < 0.65:
        lines = rng.choice(sorted(HAIKUS.values()))
        first = lines.partition("\n")[0]
        dialogue = exchange(rng.choice(_FIRST).format(first), lines)
    elif kind < 0.85:
        asked = rng.choice(_OPEN)
        dialogue = exchange(asked, OPENING)
        if "haiku" in asked and rng.random() < 0.3:
            return dialogue
    else:
        asked = rng.choice(("{}", "{}", "Start of the haiku is: {}", "Complete this haiku: {}"))
        dialogue = exchange(asked.format(nonsense(rng)), OPENING)
    return dialogue.under(rng.choice(SYSTEMS))
