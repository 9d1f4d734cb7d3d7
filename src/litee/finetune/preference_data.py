"""Preferences as training pairs: from people's votes, or from samples that a reward ranks.

Knows nothing of trainers and models; what is not used is counted by reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from litee.errors import InputError
from litee.finetune.chat_data import ChatEncoder
from litee.finetune.chat_settings import Ties
from litee.records import Dropped, Message, Outcome, VotedPair


@dataclass(frozen=True, slots=True)
class Preference:
    """Of two answers to a conversation, the better and the worse one.

    Attributes:
        messages: the conversation; the last message is the user's.
        chosen: the better answer.
        rejected: the worse one.
        margin: by how much a reward prefers it, in its own units; 0 for votes.
        finished: whether the chosen and the rejected answer ended by themselves; one that was cut
            off is not learnt from as if it ended there.
    """

    messages: tuple[Message, ...]
    chosen: str
    rejected: str
    margin: float = 0.0
    finished: tuple[bool, bool] = (True, True)


@dataclass(frozen=True, slots=True)
class Preferences:
    """Preferences, and what was left out or used in a special way.

    Attributes:
        rows: in the order of their sources.
        dropped: votes' pairs or prompts that give none, by reason.
        noticed: used, but odd, by reason.
    """

    rows: tuple[Preference, ...]
    dropped: Dropped
    noticed: Dropped


@dataclass(frozen=True, slots=True)
class EncodedPreference:
    """Token ids of a preference; answers that ended have the end of turn."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]


def preferences_from_votes(voted: Sequence[VotedPair], ties: Ties) -> Preferences:
    """Votes as preferences: the majority's, or every vote's.

    A pair is tied when ties have the largest share of votes, or A and B have equal shares.

    Args:
        voted: pairs with their votes.
        ties: `drop` leaves tied pairs out; `both` uses them in both directions; `votes` makes
            every vote of every pair an example, with alternating directions for tie votes.

    Raises:
        InputError: nothing is left.
    """
    rows: list[Preference] = []
    dropped: Counter[str] = Counter()
    noticed: Counter[str] = Counter()
    for one in voted:
        reason = _unusable(one)
        if reason:
            dropped[reason] += 1
            continue
        directions = _of_votes(one) if ties == "votes" else _of_majority(one, ties)
        if not directions:
            dropped["tied votes"] += 1
        elif ties == "both" and len(directions) == 2:
            noticed["tied votes, used in both directions"] += 1
        elif ties == "votes":
            noticed["tie votes, used in alternating directions"] += _ties(one)
        for a_wins in directions:
            row = _preference(one, a_wins)
            if row.chosen.strip():
                rows.append(row)
            else:
                dropped["the preferred answer is empty"] += 1
    return _checked(rows, dropped, noticed)


def preferences_from_samples(
    conversations: Sequence[tuple[Message, ...]],
    samples: Sequence[Sequence[str]],
    rewards: Sequence[Sequence[float]],
    margin: float,
    *,
    finished: Sequence[Sequence[bool]],
) -> Preferences:
    """The best against the worst sample of every prompt, where a reward tells them apart.

    Args:
        conversations: one per prompt.
        samples: answers per prompt.
        rewards: of the answers.
        margin: smallest difference that counts.
        finished: whether the answers ended by themselves.

    Raises:
        InputError: nothing is left, because the rewards are all but constant.
    """
    rows: list[Preference] = []
    dropped: Counter[str] = Counter()
    noticed: Counter[str] = Counter()
    for messages, answers, values, ended in zip(
        conversations, samples, rewards, finished, strict=True
    ):
        order = sorted(range(len(answers)), key=lambda k: (values[k], -k))
        worst, best = order[0], order[-1]
        gap = values[best] - values[worst]
        if answers[best].strip() == answers[worst].strip():
            dropped["best and worst sample are the same text"] += 1
        elif gap < margin or gap <= 0:
            dropped[f"rewards differ by less than {margin:g}"] += 1
        elif not answers[best].strip():
            dropped["the preferred answer is empty"] += 1
        else:
            ends = (ended[best], ended[worst])
            rows.append(Preference(messages, answers[best], answers[worst], gap, ends))
            noticed["the preferred answer was cut off"] += not ends[0]
    return _checked(rows, dropped, noticed)


def encode_preferences(
    rows: Sequence[Preference], encoder: ChatEncoder
) -> tuple[list[EncodedPreference], Dropped]:
    """Token ids; prompts that fill the length are dropped, answers beyond it are cut by TRL.

    Raises:
        InputError: nothing is left.
    """
    found: list[EncodedPreference] = []
    dropped: Counter[str] = Counter()
    for row in rows:
        prompt = encoder.prompt(row.messages)
        if len(prompt) >= encoder.max_length:
            dropped[f"the prompt alone has {encoder.max_length} tokens or more"] += 1
            continue
        chosen, rejected = (
            encoder.answer(text, finished=ended)
            for text, ended in zip((row.chosen, row.rejected), row.finished, strict=True)
        )
        found.append(EncodedPreference(prompt, chosen, rejected))
    if not found:
        raise InputError(
            f"no preference is left: {dict(dropped)}", fix="raise max_length, or shorten prompts"
        )
    return found, Dropped(dict(dropped))


def _unusable(one: VotedPair) -> str:
    pair = one.pair
    if pair.response_a[:-1] != pair.response_b[:-1]:
        return "the answers to earlier turns differ"
    if pair.response_a[-1].strip() == pair.response_b[-1].strip():
        return "both answers are the same text"
    if not all(turn.strip() for turn in pair.prompt):
        return "an empty prompt"
    return ""


def _of_majority(one: VotedPair, ties: Ties) -> list[bool]:
    a, b, tie = one.shares
    if tie >= max(a, b) or abs(a - b) < 1e-9:
        return [True, False] if ties == "both" else []
    return [a > b]


def _of_votes(one: VotedPair) -> list[bool]:
    if not one.winners:
        return _of_majority(one, "drop")
    found, next_tie = [], True
    for winner in one.winners:
        if winner in (Outcome.A, Outcome.B):
            found.append(winner is Outcome.A)
        else:
            found.append(next_tie)
            next_tie = not next_tie
    return found


def _ties(one: VotedPair) -> int:
    return sum(winner not in (Outcome.A, Outcome.B) for winner in one.winners)


def _preference(one: VotedPair, a_wins: bool) -> Preference:
    pair = one.pair
    messages: list[Message] = []
    for asked, answered in zip(pair.prompt, pair.response_a, strict=True):
        messages += [Message("user", asked), Message("assistant", answered)]
    a, b = pair.response_a[-1], pair.response_b[-1]
    return Preference(tuple(messages[:-1]), *((a, b) if a_wins else (b, a)))


def _checked(rows: list[Preference], dropped: Counter[str], noticed: Counter[str]) -> Preferences:
    if not rows:
        reasons = "; ".join(f"{count:,}: {reason}" for reason, count in dropped.items())
        raise InputError(
            f"no preference is left ({reasons or 'there were none'})",
            fix="give more votes or prompts, lower margin, or see --ties",
        )
    kept = {reason: count for reason, count in noticed.items() if count}
    return Preferences(tuple(rows), Dropped(dict(dropped)), Dropped(kept))
