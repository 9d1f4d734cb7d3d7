"""What the members of a fit come to without its ensemble: each alone, and with perfect weights.

Knows nothing of votes files and reports.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from litee.config import FitSettings
from litee.finetune.task import make_task
from litee.predict.calibration import weighted_log_loss
from litee.predict.ensemble import fit_weights, pool
from litee.predict.fit import FitResult, join_members
from litee.records import Folds, VotedPair


def members_alone(
    result: FitResult, voted: Sequence[VotedPair], folds: Folds, settings: FitSettings
) -> dict[str, float]:
    """Log losses per vote that bound what an ensemble of these members is worth.

    `best_member_calibrated_log_loss` is that of the best member, picked afterwards, with a
    calibration fitted and cross-fitted as the ensemble's is: what the ensemble has below it comes
    from pooling. `log_loss_in_hindsight` is that of the pool, not calibrated, with the weights
    that suit these very votes best: weights that have not seen them can hardly be better.

    Args:
        result: the fit.
        voted: the pairs it learnt from.
        folds: their split.
        settings: of the fit.
    """
    task = make_task(voted, folds, settings)
    votes = np.array([v.votes for v in voted], dtype=np.float64)
    members = result.out_of_fold
    alone = [
        join_members([name], members[k : k + 1], task, settings).held_out
        for k, name in enumerate(result.names)
    ]
    name, exponent = result.joined.ensemble.pool, result.joined.ensemble.exponent
    best = fit_weights(members, task.shares, votes, name=name, exponent=exponent, prior=0.0)
    pooled = pool(members, best, name, exponent)
    return {
        "best_member_calibrated_log_loss": min(
            weighted_log_loss(p, task.shares, votes) for p in alone
        ),
        "log_loss_in_hindsight": weighted_log_loss(pooled, task.shares, votes),
    }
