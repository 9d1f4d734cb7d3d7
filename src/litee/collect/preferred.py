"""Votes to demonstrations: the answers that people preferred, as what to learn from.

They were mostly written by models, so they are named for what they are: `preferred/<model>`.
Knows nothing of other formats.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from litee.collect.pairs import gather
from litee.collect.reading import Reading
from litee.collect.votes import load_votes
from litee.errors import InputError
from litee.records import Demonstration, Message, Vote, VotedPair

NOT_PREFERRED = "answer not preferred to half of those beside it"
BETTER_THERE = "better answers to the same prompt were taken"
OTHER_SYSTEM = "written by a system that was not asked for"
BLANK_TEXT = "blank prompt or answer"

_Turns = tuple[str, ...]


def read_preferred(paths: Sequence[Path], reading: Reading) -> Iterator[Demonstration]:
    """The best answers to every prompt, by what they win against the others; best first.

    An answer's score is (w + 1) / (n + 2) over its n pairs, where w sums the share of the votes
    for it, half of the ties' added (Laplace's rule of succession), so that one lucky comparison
    does not beat thirty good ones. Answers of 0.5 and less are no demonstrations. To win against
    a weak answer takes little, so that `systems` can name those whose answers are wanted; the
    others are what these are compared with.

    Raises:
        InputError: a file is missing, broken, or has no votes; nothing in it was written by a
            system that `systems` names.
    """
    votes = load_votes(list(paths))
    _all_named(votes.votes, reading.settings.systems)
    for reason, count in votes.dropped.counts.items():
        places = votes.dropped.examples[reason]
        for k in range(count):
            reading.lost.add(reason, places[min(k, len(places) - 1)])
    for number, (prompt, standings) in enumerate(_standings(gather(votes.votes)).items()):
        reading.read += len(standings)
        yield from _best(number, prompt, standings, reading)


def _all_named(votes: Sequence[Vote], systems: Sequence[str]) -> None:
    """An InputError for a system that wrote none of the answers."""
    there = {model for one in votes for model in (one.pair.model_a, one.pair.model_b) if model}
    for name in systems:
        if name not in there:
            near = difflib.get_close_matches(name, there, n=3) or sorted(there)[:8]
            raise InputError(
                f"systems: no answer was written by {name!r}: "
                + (f"there are {', '.join(near)}" if near else "the votes name no systems")
            )


@dataclass(slots=True)
class _Standing:
    """What an answer has won in its pairs, and who wrote it."""

    model: str
    won: float = 0.0
    pairs: int = 0

    @property
    def score(self) -> float:
        return (self.won + 1) / (self.pairs + 2)


def _standings(voted: Sequence[VotedPair]) -> dict[_Turns, dict[_Turns, _Standing]]:
    """Prompt → answer → standing, each in order of first appearance."""
    found: dict[_Turns, dict[_Turns, _Standing]] = {}
    for one in voted:
        pair, (a, b, tie) = one.pair, one.shares
        answers = found.setdefault(pair.prompt, {})
        sides = ((pair.response_a, pair.model_a, a), (pair.response_b, pair.model_b, b))
        for answer, model, share in sides:
            standing = answers.setdefault(answer, _Standing(model))
            standing.won += share + tie / 2
            standing.pairs += 1
    return found


def _best(
    number: int, prompt: _Turns, standings: Mapping[_Turns, _Standing], reading: Reading
) -> Iterator[Demonstration]:
    taken = 0
    place = f"answer to {prompt[0][:60]!r}"
    for answer, standing in sorted(standings.items(), key=lambda item: -item[1].score):
        if reading.settings.systems and standing.model not in reading.settings.systems:
            reading.removed.add(OTHER_SYSTEM, place)
        elif standing.score <= 0.5:
            reading.removed.add(NOT_PREFERRED, place)
        elif not all(text.strip() for text in (*prompt, *answer)):
            reading.removed.add(BLANK_TEXT, place)
        elif reading.settings.per_prompt and taken == reading.settings.per_prompt:
            reading.removed.add(BETTER_THERE, place)
        else:
            taken += 1
            turns = zip(prompt, answer, strict=True)
            yield Demonstration(
                f"preferred-{number}-{taken}",
                tuple(
                    message
                    for asked, said in turns
                    for message in (Message("user", asked), Message("assistant", said))
                ),
                source=f"preferred/{standing.model}" if standing.model else "preferred",
                score=round(standing.score, 6),
            )
