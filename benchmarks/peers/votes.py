"""One split of real votes for all: written once, read by every peer and by litee.

Pairs whose texts fit the token budget are kept, so that nobody's template cuts anything, at most
`per_prompt` of a prompt. Training has `votes_per_pair` votes of every pair, drawn at random, and
everyone trains on pairs, so that nobody gains by putting a pair's votes together. Prompts (and
answers of some length) lie on one side only. Validation keeps all votes of a pair: their shares are
what predictions are judged by. Knows nothing of models but how to count tokens.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from benchmarks.peers.environments import bench_folder
from tokenizers import Tokenizer

from litee.collect.folds import group_prompts
from litee.collect.near import normalise
from litee.collect.pairs import gather
from litee.collect.votes import load_votes
from litee.errors import ConfigError, InputError
from litee.finetune.backbones import find_backbone
from litee.records import VotedPair
from litee.rundir import Json, sha256_json, write_json, write_text


@dataclass(frozen=True, slots=True)
class SplitSettings:
    """What defines a split.

    Attributes:
        files: votes files.
        backbone: whose tokenizer counts.
        train: training votes.
        votes_per_pair: of these, per pair.
        valid: validation pairs.
        max_tokens: most tokens of prompt, A and B together, without any template.
        per_prompt: most pairs of one prompt group.
        seed: of the draws.
    """

    files: tuple[str, ...]
    backbone: str = "smollm2-135m-instruct"
    train: int = 1000
    votes_per_pair: int = 2
    valid: int = 160
    max_tokens: int = 240
    per_prompt: int = 40
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Split:
    """A split on disk.

    Attributes:
        folder: with train.jsonl, valid.jsonl and split.json.
        backbone: folder of safetensors.
        max_tokens: as in the settings.
        train_votes: number of training votes.
        train_ids: pairs of the training votes.
        valid_ids: validation pairs.
        sha256: over both files' contents.
    """

    folder: Path
    backbone: Path
    max_tokens: int
    train_votes: int
    train_ids: tuple[str, ...]
    valid_ids: tuple[str, ...]
    sha256: str

    @property
    def train(self) -> Path:
        """The training votes."""
        return self.folder / "train.jsonl"

    @property
    def valid(self) -> Path:
        """The validation votes."""
        return self.folder / "valid.jsonl"


def make_split(settings: SplitSettings, folder: Path | None = None) -> Split:
    """Read or write the split that `settings` define; the same settings give the same split.

    Raises:
        InputError: too few pairs fit the budget.
        ConfigError: `train` is not a multiple of `votes_per_pair`.
    """
    if settings.votes_per_pair < 1 or settings.train % settings.votes_per_pair:
        problem = f"{settings.train} votes cannot be {settings.votes_per_pair} per pair"
        raise ConfigError(problem, fix="ask for a multiple")
    backbone = find_backbone(settings.backbone)
    vote_set = load_votes(list(settings.files))
    defined: dict[str, Json] = {
        "settings": {**asdict(settings), "files": sorted(vote_set.inputs.values())},
        "backbone": backbone.sha256,
    }
    key = sha256_json(defined)
    folder = folder or bench_folder() / "splits" / key[:12]
    about = folder / "split.json"
    if not about.exists() or json.loads(about.read_text(encoding="utf-8"))["key"] != key:
        voted = gather(vote_set.votes)
        tokenizer = Tokenizer.from_file(str(backbone.path / "tokenizer.json"))
        _write(folder, key, settings, voted, token_counts(voted, tokenizer))
    stored = json.loads(about.read_text(encoding="utf-8"))
    return Split(
        folder,
        backbone.path,
        settings.max_tokens,
        settings.train,
        tuple(stored["train"]),
        tuple(stored["valid"]),
        stored["sha256"],
    )


def token_counts(voted: Sequence[VotedPair], tokenizer: Tokenizer) -> list[int]:
    """Text tokens of each pair: prompt, A and B, all turns, each text by itself."""
    texts = [t for v in voted for part in _texts(v) for t in part]
    of_text = {t: len(tokenizer.encode(t, add_special_tokens=False).ids) for t in set(texts)}
    return [sum(of_text[t] for part in _texts(v) for t in part) for v in voted]


def choose(
    voted: Sequence[VotedPair], counts: Sequence[int], settings: SplitSettings
) -> tuple[list[int], list[int], Counter[str]]:
    """Positions of the training and validation pairs, and why others were left out.

    Prompt groups are drawn in random order: validation is filled first, training by the rest.

    Raises:
        InputError: too few pairs.
    """
    rng = np.random.default_rng(settings.seed)
    left_out: Counter[str] = Counter()
    groups: dict[int, list[int]] = {}
    numbers = group_prompts([v.pair for v in voted], by_answer=True)
    for row in rng.permutation(len(voted)).tolist():
        reason = _unfit(voted[row], counts[row], settings.max_tokens)
        if not reason and len(groups.setdefault(numbers[row], [])) >= settings.per_prompt:
            reason = "enough pairs of its prompt"
        if reason:
            left_out[reason] += 1
        else:
            groups[numbers[row]].append(row)
    order = sorted(groups)
    rng.shuffle(order)
    train: list[int] = []
    valid: list[int] = []
    for group in order:
        (valid if len(valid) < settings.valid else train).extend(groups[group])
    known = {_answers(voted[row]) for row in valid}
    apart = [row for row in train if _answers(voted[row]) not in known]
    left_out["answers occur in validation"] = len(train) - len(apart)
    enough = [row for row in apart if voted[row].votes >= settings.votes_per_pair]
    left_out["too few votes"] = len(apart) - len(enough)
    wanted = settings.train // settings.votes_per_pair
    train = rng.permutation(enough).tolist()[:wanted]
    left_out["not needed"] = len(enough) - len(train) + max(0, len(valid) - settings.valid)
    valid = rng.permutation(valid).tolist()[: settings.valid]
    if len(train) < wanted or len(valid) < settings.valid:
        raise InputError(
            f"only {len(train)} training and {len(valid)} validation pairs fit",
            fix="allow more tokens or more pairs of a prompt, or ask for fewer",
        )
    return train, valid, left_out


def _unfit(voted: VotedPair, tokens: int, most: int) -> str:
    if tokens > most:
        return f"more than {most} tokens"
    return "" if any(map(str.strip, voted.pair.response_a + voted.pair.response_b)) else "no answer"


def _answers(voted: VotedPair) -> tuple[str, ...]:
    pair = voted.pair
    sides = (" ".join(map(normalise, side)) for side in (pair.response_a, pair.response_b))
    return tuple(sorted(sides))


def _texts(voted: VotedPair) -> Iterator[tuple[str, ...]]:
    yield from (voted.pair.prompt, voted.pair.response_a, voted.pair.response_b)


def row_of(voted: VotedPair, votes: Sequence[int]) -> dict[str, object]:
    """A pair and some of its votes in the layout that litee and `job.read_rows` read."""
    pair = voted.pair
    return {
        "pair_id": pair.id,
        "source": pair.source,
        "prompt": list(pair.prompt),
        "response_a": list(pair.response_a),
        "response_b": list(pair.response_b),
        "model_a": pair.model_a,
        "model_b": pair.model_b,
        "votes": [[voted.annotators[k], ("a", "b", "tie")[_class(voted, k)]] for k in votes],
    }


def _class(voted: VotedPair, vote: int) -> int:
    return voted.winners[vote].class_index


def _write(
    folder: Path, key: str, settings: SplitSettings, voted: Sequence[VotedPair], counts: list[int]
) -> None:
    train, valid, left_out = choose(voted, counts, settings)
    rng = np.random.default_rng((settings.seed, 1))
    drawn = [rng.permutation(voted[r].votes)[: settings.votes_per_pair].tolist() for r in train]
    some = [row_of(voted[r], votes) for r, votes in zip(train, drawn, strict=True)]
    every = [row_of(voted[r], range(voted[r].votes)) for r in valid]
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", some), ("valid", every)):
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_text(folder / f"{name}.jsonl", "".join(lines))
    write_json(
        folder / "split.json",
        {
            "key": key,
            "train": [voted[r].pair.id for r in train],
            "valid": [voted[r].pair.id for r in valid],
            "sha256": sha256_json([some, every]),  # type: ignore[list-item]
            "mean_tokens": float(np.mean([counts[r] for r in train])),
            "sources": dict(Counter(voted[r].pair.source for r in train)),
            "left_out": dict(left_out),
        },
    )
