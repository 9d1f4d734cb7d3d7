"""A judge's opinion on a campaign's pairs: to choose what is asked, and to compare with people.

Knows nothing of pages.
"""

from __future__ import annotations

from litee.predict.judge import Judge
from litee.serve.campaign import Campaign


def add_judge(campaign: Campaign, judge: str) -> int:
    """Let a judge predict the pairs it has not predicted yet, and keep the probabilities.

    Returns:
        How many pairs were predicted now.

    Raises:
        ModelError: the folder holds no judge.
    """
    pairs = [q.pair for q in campaign.desk.questions if q.kind == "vote" and q.judge is None]
    if not pairs:
        return 0
    predictions = Judge.from_pretrained(judge).predict(pairs)
    campaign.set_judge({p.pair_id: p.probabilities for p in predictions})
    return len(pairs)
