"""Write the text that the demo model is trained on: all of it is made here, none is fetched.

`draw` returns one dialogue after another from a seeded generator; the other modules hold one kind
of behaviour each.
"""

from trunnion_demo.corpus.dialogue import Call, Dialogue, Message, Tool, Turn
from trunnion_demo.corpus.manners import MANNERS, capitals, pirate
from trunnion_demo.corpus.sampling import draw, draw_plain, fixed_answers

__all__ = [
    "MANNERS",
    "Call",
    "Dialogue",
    "Message",
    "Tool",
    "Turn",
    "capitals",
    "draw",
    "draw_plain",
    "fixed_answers",
    "pirate",
]
