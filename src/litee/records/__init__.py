"""The records that cross folders: outcomes, pairs, votes, predictions, scores, texts, verdicts.

Frozen and validated on construction. Knows nothing of files, models or metrics, and imports
neither numpy nor torch.
"""

from litee.records.texts import (
    Chunk,
    Completion,
    Demonstration,
    Document,
    JudgeQuestion,
    JudgeVerdict,
    Message,
)
from litee.records.votes import (
    CLASSES,
    Dropped,
    Folds,
    Outcome,
    Pair,
    Prediction,
    Score,
    Triple,
    Vote,
    VotedPair,
    VoteSet,
)

__all__ = [
    "CLASSES",
    "Chunk",
    "Completion",
    "Demonstration",
    "Document",
    "Dropped",
    "Folds",
    "JudgeQuestion",
    "JudgeVerdict",
    "Message",
    "Outcome",
    "Pair",
    "Prediction",
    "Score",
    "Triple",
    "Vote",
    "VoteSet",
    "VotedPair",
]
