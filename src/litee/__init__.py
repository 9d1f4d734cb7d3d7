"""LoRA-LiteE: human votes → a calibrated judge → better chatbots → new votes.

Data flows through the folders in alphabetical order: `collect` reads votes, `encode` turns them
into token trees, `finetune` fits members over a frozen trunk, `predict` joins them into a judge,
`score` measures and reports. `records` holds the shapes that cross between them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from litee.collect.votes import load_pairs, load_votes
    from litee.config import FitSettings
    from litee.errors import LiteeError
    from litee.predict.fit import fit_judge
    from litee.predict.judge import Judge
    from litee.records import Outcome, Pair, Prediction, Vote, VotedPair

_HOMES = {
    "FitSettings": "litee.config",
    "Judge": "litee.predict.judge",
    "LiteeError": "litee.errors",
    "Outcome": "litee.records",
    "Pair": "litee.records",
    "Prediction": "litee.records",
    "Vote": "litee.records",
    "VotedPair": "litee.records",
    "fit_judge": "litee.predict.fit",
    "load_pairs": "litee.collect.votes",
    "load_votes": "litee.collect.votes",
}

__all__ = [
    "FitSettings",
    "Judge",
    "LiteeError",
    "Outcome",
    "Pair",
    "Prediction",
    "Vote",
    "VotedPair",
    "fit_judge",
    "load_pairs",
    "load_votes",
]


def __getattr__(name: str) -> object:
    """Public names are imported when they are first used, so `import litee` needs no torch."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'litee' has no attribute {name!r}")
