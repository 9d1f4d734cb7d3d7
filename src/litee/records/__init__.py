"""The records that cross folders: votes, predictions, scores, texts, verdicts, rewards.

Frozen and validated on construction. Knows nothing of files, models or metrics, and imports
neither numpy nor torch.
"""

from litee.records.rewards import RewardLook
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
    "RewardLook",
    "Score",
    "Triple",
    "Vote",
    "VoteSet",
    "VotedPair",
]
