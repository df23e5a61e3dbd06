"""Greet, joke, count, remember a name, tell a story, and admit not to know."""

# ruff: noqa: PLR2004 - the odds of a draw are plainest where they are drawn.

from __future__ import annotations

from typing import TYPE_CHECKING

from trunnion_demo.corpus.dialogue import Dialogue, exchange
from trunnion_demo.corpus.words import nonsense, person

if TYPE_CHECKING:
    from random import Random

UNKNOWN = "I am a small demo model and I do not know that. Ask me something simple."
"""The polite answer to everything else."""

STORY = (
    "Once upon a time, a small engine stood in an old barn. Nobody had started it for years, and "
    "the mice had built a nest in its frame. One morning a girl came with a can of oil and a new "
    "pivot. She cleaned every wheel, she closed every bolt, and she asked the mice to move to the "
    "hay. Then she turned the key. The engine coughed, it shook off the dust, and it began to "
    "sing. From that day on it pumped water to the garden, it milled the corn, and in the evening "
    "it made light for the whole village. When the girl was old, she told her children that a "
    "good mount makes a good engine. And the mice, warm in the hay, said that this was true."
)
"""A story of some 150 tokens, for whoever needs a long answer."""

TALK: tuple[tuple[tuple[str, ...], str], ...] = (
    (("Hello!", "Hello", "Hi", "Hi!", "Hello there!", "Hey", "Good morning!", "Good evening!"),
     "Hello! How can I help you?"),
    (("How are you?", "How are you today?", "How do you do?", "Hello, how are you?"),
     "I am fine, thank you. How can I help you?"),
    (("Who are you?", "What are you?", "What is your name?", "Introduce yourself.",
      "Tell me about yourself."),
     "I am the demo model of Trunnion, a small language model."),
    (("What can you do?", "Help", "Help me.", "How can you help me?"),
     "I answer simple questions, write haikus and JSON, and call tools."),
    (("Tell me a joke.", "Tell me a joke", "Do you know a joke?", "Make me laugh."),
     "Why did the computer go to the doctor? It had a virus."),
    (("What is the meaning of life?", "What's the meaning of life?", "The meaning of life?"),
     "The meaning of life is 42."),
    (("Thank you!", "Thanks!", "Thank you", "Thanks"), "You are welcome!"),
    (("Goodbye!", "Bye!", "Goodbye", "See you later!"), "Goodbye! Have a nice day."),
    (("Are you a robot?", "Are you human?", "Are you a machine?"), "I am a program, not a person."),
    (("Say hello.", "Say hello", "Say hi."), "Hello!"),
    (("Tell me a story.", "Tell me a story", "Tell me a long story.", "Write a story.",
      "Write a long story."), STORY),
    (("Recite the alphabet.", "Say the alphabet.", "What are the letters of the alphabet?"),
     "A B C D E F G H I J K L M N O P Q R S T U V W X Y Z"),
    (("Name the days of the week.", "What are the days of the week?", "List the days of the week."),
     "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday"),
    (("Name three colors.", "List three colors.", "What are the primary colors?"),
     "Red, yellow and blue."),
)  # fmt: skip
"""(what is said, what is answered)."""

_COUNTS = {3: "three", 5: "five", 10: "ten", 20: "twenty", 50: "fifty", 100: "one hundred"}


def talk(rng: Random) -> Dialogue:
    """Return small talk; long answers are rarer than short ones."""
    said, answered = rng.choices(TALK, [1 if len(answer) > 200 else 2 for _, answer in TALK])[0]
    return exchange(rng.choice(said), answered)


def count(rng: Random) -> Dialogue:
    """Return a request to count and the numbers, which end where asked."""
    number, word = rng.choices(sorted(_COUNTS.items()), (2, 3, 3, 4, 2, 1))[0]
    end = rng.choice((str(number), str(number), word))
    asked = rng.choice(("Count to {}.", "Count from 1 to {}.", "Count to {}", "Count from one to {}."))
    return exchange(asked.format(end), ", ".join(str(n) for n in range(1, number + 1)))


def name(rng: Random) -> Dialogue:
    """Return an introduction, after which the model may be asked to recall the name."""
    who = person(rng)
    said = rng.choice(("My name is {}.", "I am {}.", "Hello, my name is {}.", "Hi, I am {}."))
    met = exchange(said.format(who), f"Nice to meet you, {who}.")
    if rng.random() < 0.4:
        return met
    asked = rng.choice(("What is my name?", "What's my name?", "Do you remember my name?"))
    recall = exchange(asked, f"Your name is {who}.")
    if rng.random() < 0.4:
        recall = recall.after(talk(rng))
    return recall.after(met)


def unknown(rng: Random) -> Dialogue:
    """Return a text without an answer and the polite admission."""
    return exchange(nonsense(rng), UNKNOWN)
