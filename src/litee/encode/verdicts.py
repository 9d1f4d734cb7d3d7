"""The question that asks a language model for its verdict on a pair, and solved examples of it.

The wording and the examples are the project's own and are in no votes file. Knows nothing of
tokens and models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: What stands behind both answers.
QUESTION = "\n\nWhich response is better? Reply with A, B or tie."

#: The replies, in the order of the classes.
VERDICTS = ("A", "B", "tie")


@dataclass(frozen=True, slots=True)
class Shot:
    """A solved example.

    Attributes:
        prompt: what was asked.
        response_a: one answer.
        response_b: the other.
        verdict: the reply.
    """

    prompt: str
    response_a: str
    response_b: str
    verdict: Literal["A", "B", "tie"]


#: One example of each verdict, so that none is named more often than another.
SHOTS = (
    Shot(
        "How many legs does a spider have?",
        "Six, as all insects do.",
        "A spider has eight legs. It is an arachnid, not an insect.",
        "B",
    ),
    Shot(
        "Name a fruit that is yellow.",
        "A banana is yellow.",
        "A ripe lemon is yellow.",
        "tie",
    ),
    Shot(
        "Write a polite note that says I cannot come to dinner on Friday.",
        "Thank you so much for the invitation. I am sorry that I cannot come on Friday, and I "
        "hope that we find another evening soon.",
        "I will not come on Friday.",
        "A",
    ),
)
