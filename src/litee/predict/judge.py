"""The Judge: loads an artifact, predicts pairs in both orders at once, gives rewards.

Every backbone runs once per chunk of pairs, whatever the number of members on it; prompts and
answers that occur in several pairs run once. Knows nothing of votes and training.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from litee.config import Device
from litee.errors import ModelError
from litee.finetune.statistics import GROUPS, statistics_states
from litee.predict.artifact import JudgeFile, load_judge_file
from litee.predict.calibration import Floats
from litee.predict.runner import (
    BackboneRunner,
    LoadedMember,
    MemberOutput,
    head_output,
    joined,
    member_readers,
)
from litee.records import Pair, Prediction

#: Pairs that are encoded and run together; bounds the memory of a prediction.
CHUNK_PAIRS = 1000


class Judge:
    """A fitted judge.

    Args:
        folder: where it lies.
        file: its description.
        device: where its backbones run.

    Use `Judge.from_pretrained`.
    """

    def __init__(self, folder: Path, file: JudgeFile, *, device: Device = "auto") -> None:
        self.folder, self.file = folder, file
        loaded = [LoadedMember(m, member_readers(m, folder)) for m in file.members]
        self._statistics = [m for m in loaded if m.entry.kind == "statistics"]
        self._runners = [
            BackboneRunner(
                b, [m for m in loaded if m.entry.backbone == b.name], folder, device=device
            )
            for b in file.backbones
        ]

    @classmethod
    def from_pretrained(cls, path_or_hub: str | Path, *, device: Device = "auto") -> Judge:
        """Load a judge from a folder or from the hub (`owner/name`).

        Args:
            path_or_hub: the folder or the name.
            device: where its backbones run; wherever it was fitted, it runs on both.

        Raises:
            ConfigError: a judge with 8-bit products is asked to run on a GPU.
            ModelError: not found, damaged, or made with other weights of its backbone.
            ResourceError: there is no such device.
        """
        folder = Path(path_or_hub)
        if not folder.is_dir() and str(path_or_hub).count("/") == 1 and not folder.is_absolute():
            folder = _download(str(path_or_hub))
        return cls(folder, load_judge_file(folder), device=device)

    @property
    def state_numbers(self) -> int:
        """Numbers that are held per pair while it is judged: two answers, all heads."""
        heads = sum(2 * reader.head.width for m in self._statistics for reader in m.readers)
        for runner in self._runners:
            readers = sum(len(member.readers) for member in runner.members)
            heads += 2 * 2 * runner.backbone.trunk.hidden_size * readers
        return heads

    def predict(self, pairs: Iterable[Pair]) -> tuple[Prediction, ...]:
        """Calibrated probabilities and rewards, in the order of the pairs.

        Exchanging the answers of a pair exchanges P(A) and P(B).
        """
        return tuple(self.stream(pairs))

    def stream(self, pairs: Iterable[Pair]) -> Iterator[Prediction]:
        """Like `predict`, chunk by chunk: memory does not grow with the number of pairs."""
        rest = iter(pairs)
        while chunk := list(islice(rest, CHUNK_PAIRS)):
            yield from self._predict(chunk)

    def member_outputs(
        self, pairs: Sequence[Pair], *, keep_states: bool = False
    ) -> dict[str, MemberOutput]:
        """What every member says by itself, by name, in the order of `judge.json`.

        Pairs of the same prompt are run together, wherever they stand, so that texts are shared.
        With `keep_states` a second call on the same texts runs no backbone.
        """
        order = sorted(range(len(pairs)), key=lambda k: pairs[k].prompt)
        outputs: dict[str, MemberOutput] = {}
        for start in range(0, len(pairs), CHUNK_PAIRS):
            chunk = [pairs[k] for k in order[start : start + CHUNK_PAIRS]]
            part = self._outputs(chunk, keep_states=keep_states)
            for name, output in part.items():
                outputs[name] = _append(outputs.get(name), output)
        back = np.argsort(order)
        return {m.name: _reorder(outputs[m.name], back) for m in self.file.members}

    def reward(self, prompt: str | Sequence[str], answer: str | Sequence[str]) -> float:
        """Scalar reward of one answer, in nats of log odds; only differences count.

        It is the weighted sum of the members' rewards: in a logarithmic pool of Davidson members
        without a lapse rate their difference is log P(A) − log P(B). Under a lapse rate they are
        log odds among the votes that do not lapse.

        Raises:
            ModelError: no member has a reward (a judge of joint or verdict members only).
        """
        turns = (prompt,) if isinstance(prompt, str) else tuple(prompt)
        answers = (answer,) if isinstance(answer, str) else tuple(answer)
        found = self.predict([Pair("reward", turns, answers, answers)])[0].reward_a
        if found is None:
            raise ModelError(
                "this judge has joint or verdict members only, which have no reward",
                place=str(self.folder),
                fix="fit one with probe or lora among --members",
            )
        return found

    def _outputs(
        self, pairs: Sequence[Pair], *, keep_states: bool = False
    ) -> dict[str, MemberOutput]:
        outputs: dict[str, MemberOutput] = {}
        if self._statistics:
            for member in self._statistics:
                groups = member.entry.statistics or tuple(GROUPS)
                data = statistics_states(pairs, groups)
                cut = np.zeros((len(pairs), 3), dtype=np.int64)
                said = [head_output(reader.head, data, cut) for reader in member.readers]
                outputs[member.entry.name] = joined(member.entry, said)
        for runner in self._runners:
            outputs |= runner.run(pairs, keep_states=keep_states)
        return outputs

    def _predict(self, pairs: Sequence[Pair]) -> list[Prediction]:
        outputs = self._outputs(pairs)
        names = self.file.ensemble.members
        stacked = np.stack([outputs[name].probabilities for name in names])
        probabilities = self.file.ensemble.apply(stacked)
        rewards = self._rewards(outputs)
        cut = np.max([outputs[name].cut for name in names], axis=0)
        return [
            Prediction(
                pair.id,
                (float(p[0]), float(p[1]), float(p[2])),
                None if rewards is None else float(rewards[k, 0]),
                None if rewards is None else float(rewards[k, 1]),
                (int(cut[k, 0]), int(cut[k, 1]), int(cut[k, 2])),
            )
            for k, (pair, p) in enumerate(zip(pairs, probabilities, strict=True))
        ]

    def _rewards(self, outputs: dict[str, MemberOutput]) -> Floats | None:
        ensemble = self.file.ensemble
        total: Floats | None = None
        for name, weight in zip(ensemble.members, ensemble.weights, strict=True):
            rewards = outputs[name].rewards
            if rewards is not None and weight > 0:
                part = weight * ensemble.calibration.scale * rewards
                total = part if total is None else total + part
        return total


def _append(old: MemberOutput | None, new: MemberOutput) -> MemberOutput:
    if old is None:
        return new
    rewards = None
    if old.rewards is not None and new.rewards is not None:
        rewards = np.concatenate([old.rewards, new.rewards])
    return MemberOutput(
        np.concatenate([old.probabilities, new.probabilities]),
        rewards,
        np.concatenate([old.cut, new.cut]),
    )


def _reorder(output: MemberOutput, order: npt.NDArray[np.int64]) -> MemberOutput:
    rewards = None if output.rewards is None else output.rewards[order]
    return MemberOutput(output.probabilities[order], rewards, output.cut[order])


def _download(name: str) -> Path:
    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.md"]))
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        raise ModelError(
            f"cannot get the judge {name!r} from the hub ({type(error).__name__})",
            fix="name a folder made by `litee fit`; hub names need a network once",
        ) from error
