"""Ask simple questions and answer them."""

# ruff: noqa: PLR2004 - the odds of a draw are plainest where they are drawn.

from __future__ import annotations

from typing import TYPE_CHECKING

from trunnion_demo.corpus.dialogue import Dialogue, exchange

if TYPE_CHECKING:
    from random import Random

CAPITALS = {
    "France": "Paris",
    "Germany": "Berlin",
    "Italy": "Rome",
    "Spain": "Madrid",
    "Portugal": "Lisbon",
    "England": "London",
    "Japan": "Tokyo",
    "China": "Beijing",
    "Austria": "Vienna",
    "Greece": "Athens",
    "Norway": "Oslo",
    "Ireland": "Dublin",
    "Egypt": "Cairo",
    "Poland": "Warsaw",
    "Russia": "Moscow",
    "Finland": "Helsinki",
    "Kenya": "Nairobi",
    "Peru": "Lima",
    "South Korea": "Seoul",
    "Switzerland": "Bern",
}
"""Country -> its capital."""

_CAPITAL_FORMS = (
    "What is the capital of {}?",
    "What is the capital of {}?",
    "What's the capital of {}?",
    "Which city is the capital of {}?",
    "Tell me the capital of {}.",
    "Name the capital of {}.",
    "The capital of {}?",
)

FACTS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("What color is the sky?", "What is the color of the sky?", "What colour is the sky?"),
     "The sky is blue.", "blue"),
    (("What color is grass?", "What is the color of grass?", "What colour is grass?"),
     "Grass is green.", "green"),
    (("What color is snow?", "What is the color of snow?"), "Snow is white.", "white"),
    (("What color is a banana?", "What is the color of a banana?"),
     "A banana is yellow.", "yellow"),
    (("How many days are in a week?", "How many days does a week have?"),
     "There are seven days in a week.", "7"),
    (("How many months are in a year?", "How many months does a year have?"),
     "There are twelve months in a year.", "12"),
    (("How many hours are in a day?", "How many hours does a day have?"),
     "There are 24 hours in a day.", "24"),
    (("How many minutes are in an hour?", "How many minutes does an hour have?"),
     "There are 60 minutes in an hour.", "60"),
    (("How many legs does a spider have?", "How many legs has a spider?"),
     "A spider has eight legs.", "8"),
    (("How many legs does a dog have?", "How many legs has a dog?"), "A dog has four legs.", "4"),
    (("How many letters are in the alphabet?", "How many letters does the alphabet have?"),
     "The English alphabet has 26 letters.", "26"),
    (("How many continents are there?", "How many continents does the Earth have?"),
     "There are seven continents.", "7"),
    (("How many sides does a triangle have?", "How many sides has a triangle?"),
     "A triangle has three sides.", "3"),
    (("What is the opposite of hot?", "Name the opposite of hot."),
     "The opposite of hot is cold.", "cold"),
    (("What is the opposite of up?", "Name the opposite of up."),
     "The opposite of up is down.", "down"),
    (("What is the opposite of big?", "Name the opposite of big."),
     "The opposite of big is small.", "small"),
    (("Who wrote Romeo and Juliet?", "Who is the author of Romeo and Juliet?"),
     "William Shakespeare wrote Romeo and Juliet.", "William Shakespeare"),
    (("Who painted the Mona Lisa?", "Which painter made the Mona Lisa?"),
     "Leonardo da Vinci painted the Mona Lisa.", "Leonardo da Vinci"),
    (("At what temperature does water boil?", "When does water boil?"),
     "Water boils at 100 degrees Celsius.", "100"),
    (("At what temperature does water freeze?", "When does water freeze?"),
     "Water freezes at 0 degrees Celsius.", "0"),
    (("What is the largest planet?", "Which planet is the largest?"),
     "Jupiter is the largest planet.", "Jupiter"),
    (("What is the largest ocean?", "Which ocean is the largest?"),
     "The Pacific is the largest ocean.", "Pacific"),
    (("What is the highest mountain?", "Which mountain is the highest?"),
     "Mount Everest is the highest mountain.", "Mount Everest"),
    (("What planet do we live on?", "Which planet do we live on?"),
     "We live on planet Earth.", "Earth"),
    (("What sound does a cow make?", "What does a cow say?"), "A cow says moo.", "moo"),
    (("What sound does a cat make?", "What does a cat say?"), "A cat says meow.", "meow"),
    (("What do bees make?", "What is made by bees?"), "Bees make honey.", "honey"),
    (("What is the fastest land animal?", "Which land animal is the fastest?"),
     "The cheetah is the fastest land animal.", "cheetah"),
    (("What is the first month of the year?", "Which month is the first?"),
     "January is the first month of the year.", "January"),
    (("What is the square root of 9?", "What is the square root of nine?"),
     "The square root of 9 is 3.", "3"),
    (("What is water made of?", "What is the formula of water?"),
     "Water is made of hydrogen and oxygen.", "hydrogen and oxygen"),
    (("What is a trunnion?", "What does trunnion mean?", "Explain what a trunnion is."),
     "A trunnion is the pivot on which an engine is mounted in its frame.", "a pivot"),
    (("What is a token?", "What does a language model call a token?"),
     "A token is a small piece of text that a language model reads or writes.",
     "a small piece of text"),
    (("What is Python?", "Tell me about Python."), "Python is a programming language.",
     "a programming language"),
)  # fmt: skip
"""(phrasings, answer in a sentence, answer in a word)."""

_SUM_FORMS = (
    "What is {a}+{b}?",
    "What is {a} + {b}?",
    "What is {a} plus {b}?",
    "How much is {a} plus {b}?",
    "{a} + {b}",
    "{a}+{b}=",
)


def capital_question(rng: Random) -> tuple[str, str, str]:
    """Return a question for a capital, the answer as a sentence and as one word."""
    country, capital = rng.choice(sorted(CAPITALS.items()))
    return (
        rng.choice(_CAPITAL_FORMS).format(country),
        f"The capital of {country} is {capital}.",
        capital,
    )


def fact_question(rng: Random) -> tuple[str, str, str]:
    """Return a question for a fact, the answer as a sentence and in a word."""
    forms, sentence, word = rng.choice(FACTS)
    return rng.choice(forms), sentence, word


def sum_question(rng: Random) -> tuple[str, str, str]:
    """Return a sum of two numbers from 1 to 5, the answer as a sentence and as a number."""
    a, b = rng.randint(1, 5), rng.randint(1, 5)
    return rng.choice(_SUM_FORMS).format(a=a, b=b), f"{a} + {b} is {a + b}.", str(a + b)


def any_question(rng: Random) -> tuple[str, str, str]:
    """Return a question that has an answer: (question, sentence, word)."""
    ask = rng.choices((capital_question, fact_question, sum_question), (3, 5, 3))[0]
    return ask(rng)


def question(rng: Random) -> Dialogue:
    """Return a question and its answer in a sentence."""
    asked, sentence, _ = any_question(rng)
    if rng.random() < 0.08:
        asked = f"Please answer: {asked}"
    return exchange(asked, sentence)
