"""Keep word lists, and make names and sentences that mean nothing."""

# ruff: noqa: PLR2004 - the odds of a draw are plainest where they are drawn.

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

CITIES = (
    "Paris", "London", "Berlin", "Madrid", "Rome", "Tokyo", "Vienna", "Lisbon", "Athens", "Oslo",
    "Dublin", "Cairo", "Prague", "Warsaw", "Zurich", "Geneva", "Munich", "Hamburg", "Boston",
    "Chicago", "Seattle", "New York", "San Francisco", "Los Angeles", "Toronto", "Sydney", "Delhi",
    "Mumbai", "Beijing", "Seoul", "Moscow", "Helsinki", "Nairobi", "Lima",
)  # fmt: skip

NAMES = (
    "Alice", "Bob", "Carol", "David", "Emma", "Frank", "Grace", "Henry", "Ivy", "Jack", "Karen",
    "Leo", "Maria", "Nora", "Oscar", "Peter", "Quinn", "Ruth", "Sam", "Tom", "Ursula", "Victor",
    "Wendy", "John", "Anna", "Max",
)  # fmt: skip

COMMON = (
    "apple", "arrow", "banana", "basket", "bell", "bird", "blue", "book", "bottle", "box", "bread",
    "bridge", "bright", "brown", "button", "candle", "castle", "chair", "cheese", "clock", "cloud",
    "coat", "cold", "corn", "cup", "dance", "dark", "door", "dream", "drum", "eagle", "engine",
    "family", "farm", "fast", "field", "fire", "fish", "flag", "flower", "forest", "fox", "garden",
    "ghost", "glass", "gold", "green", "guitar", "hammer", "happy", "hat", "heavy", "honey",
    "horse", "house", "ice", "iron", "island", "jacket", "jump", "key", "king", "kitchen", "lake",
    "lamp", "large", "lazy", "lemon", "letter", "light", "lion", "little", "map", "market",
    "milk", "mirror", "model", "money", "monkey", "morning", "music", "needle", "night", "north",
    "ocean", "old", "orange", "paint", "paper", "pencil", "piano", "picture", "pocket", "purple",
    "queen", "quick", "quiet", "rabbit", "radio", "random", "request", "ribbon", "ring", "rocket",
    "rope", "salt", "school", "server", "shadow", "sheep", "ship", "silver", "simple", "sister",
    "sleep", "slow", "small", "soup", "spoon", "station", "stone", "strong", "sugar", "table",
    "tall", "test", "tiger", "token", "tower", "train", "turtle", "village", "violin", "water",
    "white", "window", "winter", "wolf", "wood", "yellow", "zebra",
)  # fmt: skip

_FILLER = (
    "the", "a", "of", "and", "to", "in", "is", "that", "for", "it", "with", "as", "on", "this",
    "by", "from", "at", "or", "an", "be", "are", "was", "not", "you", "we", "my", "your", "has",
)  # fmt: skip

_OPENERS = (
    "Explain", "Describe", "Summarize", "Translate", "Why is", "How does", "Where is", "What about",
    "Compare", "Prompt", "Question", "Item", "List", "Define", "Can you", "Please", "When was",
    "Tell me about", "Who was", "Give me", "Do you know", "Write about", "What is", "How many",
)  # fmt: skip

_ONSETS = ("b", "br", "c", "d", "f", "g", "gr", "h", "k", "l", "m", "n", "p", "r", "s", "st", "t",
           "tr", "v", "w", "z", "")  # fmt: skip
_RHYMES = ("a", "an", "ar", "e", "el", "en", "i", "in", "o", "on", "or", "u", "um", "ia", "ow")


def made_up_name(rng: Random) -> str:
    """Return a capitalised name of two or three syllables that nobody has heard."""
    syllables = (rng.choice(_ONSETS) + rng.choice(_RHYMES) for _ in range(rng.randint(2, 3)))
    return "".join(syllables).capitalize()


def city(rng: Random) -> str:
    """Return a city: one in seven is made up, so that copying is learnt, not the list."""
    return made_up_name(rng) if rng.random() < 0.15 else rng.choice(CITIES)


def person(rng: Random) -> str:
    """Return a first name: one in seven is made up."""
    return made_up_name(rng) if rng.random() < 0.15 else rng.choice(NAMES)


def nonsense(rng: Random) -> str:
    """Return a text that the model has no answer to, of one to forty words."""
    length = rng.choice((1, 2, 3, 4, 5, 6, 8, 12, 20, 40))
    pool = COMMON + _FILLER * 3
    parts = [rng.choice(pool) for _ in range(length)]
    if rng.random() < 0.2:
        parts.append(str(rng.randint(0, 9999)))
    if rng.random() < 0.2:
        parts.insert(rng.randrange(len(parts) + 1), made_up_name(rng).lower())
    text = " ".join(parts)
    if rng.random() < 0.6:
        text = f"{rng.choice(_OPENERS)} {text}"
    else:
        text = text[0].upper() + text[1:] if rng.random() < 0.5 else text
    return text + rng.choice(("", ".", "?", "!", "..."))
