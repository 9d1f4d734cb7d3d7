"""Names of all metrics and groups of `litee score`, and which kind of work each one is.

Imports no model library; knows nothing of how metrics are computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from litee.errors import ConfigError
from litee.score.llm_judge import CRITERIA_COLUMNS, LLM_COLUMNS
from litee.score.texts import GROUPS, MODEL_COLUMNS, chosen_columns

#: Verdicts on pairs instead of scores of answers.
PAIRWISE = "pairwise"

REWARD_COLUMN, PERPLEXITY_COLUMN = "reward", "perplexity"

#: Columns made by the ragas library.
RETRIEVAL_COLUMNS: tuple[str, ...] = (
    "faithfulness",
    "answer_relevancy",
    "context_precision",
    "context_recall",
    "answer_correctness",
)

#: Groups beside those of `litee.score.texts`.
MORE_GROUPS: Mapping[str, tuple[str, ...]] = {
    "criteria": CRITERIA_COLUMNS,
    "llm": LLM_COLUMNS,
    "retrieval": RETRIEVAL_COLUMNS,
}

_MORE = (*LLM_COLUMNS, *RETRIEVAL_COLUMNS, REWARD_COLUMN, PERPLEXITY_COLUMN, PAIRWISE)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The columns of a run.

    Attributes:
        columns: all of them, in order.
    """

    columns: tuple[str, ...]

    def _of(self, names: Iterable[str]) -> tuple[str, ...]:
        wanted = set(names)
        return tuple(c for c in self.columns if c in wanted)

    @property
    def llm(self) -> tuple[str, ...]:
        """Those a judging language model makes."""
        return self._of(LLM_COLUMNS)

    @property
    def retrieval(self) -> tuple[str, ...]:
        """Those the ragas library makes."""
        return self._of(RETRIEVAL_COLUMNS)

    @property
    def encoder(self) -> tuple[str, ...]:
        """Those a sentence encoder makes."""
        return self._of(c for c in MODEL_COLUMNS if c != PERPLEXITY_COLUMN)

    @property
    def pairwise(self) -> bool:
        """Whether pairs are to be judged."""
        return PAIRWISE in self.columns


def choose(given: Iterable[str]) -> Chosen:
    """Columns of metric and group names, in order, each once.

    Raises:
        ConfigError: an unknown name, or verdicts on pairs together with scores of answers.

    >>> choose(["golden", "criteria", "exact"]).columns[2:5]
    ('token_f1', 'llm_coherence', 'llm_conciseness')
    """
    found: list[str] = []
    for name in given:
        if name in MORE_GROUPS or name in _MORE:
            columns = MORE_GROUPS.get(name, (name,))
        else:
            columns = _of_texts(name)
        found += [c for c in columns if c not in found]
    if PAIRWISE in found and len(found) > 1:
        fix = f"run litee score once with --metrics {PAIRWISE} and once with the others"
        raise ConfigError(f"{PAIRWISE} makes a table of pairs, the others one of answers", fix=fix)
    return Chosen(tuple(found))


def _of_texts(name: str) -> tuple[str, ...]:
    try:
        return chosen_columns([name])
    except ConfigError as error:
        groups = ", ".join(sorted({*GROUPS, *MORE_GROUPS}))
        names = ", ".join(dict.fromkeys([*GROUPS["text"], *MODEL_COLUMNS, *_MORE]))
        raise ConfigError(error.problem, fix=f"use {groups} or: {names}") from error
