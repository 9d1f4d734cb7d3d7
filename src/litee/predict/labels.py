"""A local causal language model that answers by label, and says how likely a text is.

The reply to a question is never generated: the probabilities of the allowed labels are read at
the place where the reply would start, so that nothing in a text can make the model answer in
another format. What several questions share is run once. Knows nothing of criteria, rubrics and
metrics: questions and labels are given.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from safetensors import safe_open
from torch import Tensor, nn

from litee.encode.budget import keep_ends
from litee.encode.forest import EncodedPair, Forest, Ids, Pack, grow, pack_leaves
from litee.encode.templates import Template, TemplateName
from litee.errors import ModelError
from litee.finetune.backbones import Backbone, find_backbone, load_backbone
from litee.finetune.device import DtypeName
from litee.finetune.parallel import passes_at_once, side_by_side
from litee.finetune.states import PACK_TOKENS
from litee.finetune.trunk import PackedTrees, lay_out
from litee.records import JudgeQuestion, JudgeVerdict

#: Rows of the vocabulary's logits in memory at once.
_LOGIT_ROWS = 128

#: Why a question has no verdict.
NO_ROOM = "longer than the model's positions"


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How likely an answer is after its prompt.

    Attributes:
        log_probability: natural logarithm, summed over the answer's tokens.
        tokens: that were counted, at least 1.
        cut: tokens of prompt and answer that were left out.
    """

    log_probability: float
    tokens: int
    cut: int


class OutputHead:
    """From the states after the last layer to logits: final norm, vocabulary weights, scalings.

    Args:
        backbone: loaded at full depth.

    Attributes:
        norm: the final norm.
        cap: soft cap of the logits, None for none.
        scale: factor of the logits.
        weight: (vocabulary, hidden).
        bias: (vocabulary,), or None.

    Raises:
        ModelError: the folder has no output weights.
    """

    def __init__(self, backbone: Backbone) -> None:
        decoder = backbone.trunk.decoder
        self.norm = cast(
            nn.Module,
            getattr(decoder, "norm", None) or getattr(decoder, "final_layernorm", None),
        )
        config = decoder.config
        self.cap: float | None = getattr(config, "final_logit_softcapping", None)
        self.scale = getattr(config, "logit_scale", None) or 1.0
        self.scale /= getattr(config, "logits_scaling", None) or 1.0
        self.weight, self.bias = _output_weights(backbone)

    def logits(self, states: Tensor, rows: Tensor | None = None) -> Tensor:
        """(n, hidden) states → (n, vocabulary) float32 logits, or those of some tokens only.

        Args:
            states: after the last layer, before the final norm.
            rows: token ids to compute, all when None.
        """
        weight = self.weight if rows is None else self.weight[rows]
        bias = self.bias if self.bias is None or rows is None else self.bias[rows]
        found = nn.functional.linear(self.norm(states), weight, bias).float() * self.scale
        if self.cap:
            found = torch.tanh(found / self.cap) * self.cap
        return found


def _output_weights(backbone: Backbone) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of the output layer: the folder's own, else the tied embeddings."""
    trunk = backbone.trunk
    found: dict[str, Tensor] = {}
    for file in sorted(backbone.folder.path.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - the reader is no mapping
                if name.endswith(("lm_head.weight", "lm_head.bias")):
                    found[name.rsplit(".", 1)[1]] = tensors.get_tensor(name)
    if "weight" not in found:
        if not trunk.decoder.config.tie_word_embeddings:
            fix = "use a causal language model: the folder of a base or chat model"
            raise ModelError("has no output weights (lm_head)", place=backbone.folder.name, fix=fix)
        embeddings = cast(nn.Embedding, trunk.decoder.get_input_embeddings())
        return embeddings.weight, None
    placed = {k: v.to(device=trunk.device, dtype=trunk.dtype) for k, v in found.items()}
    return placed["weight"], placed.get("bias")


class LabelModel:
    """A causal language model that chooses among labels and scores texts.

    Args:
        name: of the backbone, as `find_backbone` takes it.
        dtype: of weights and states.
        device: `cpu` or `cuda`.
        max_text_tokens: tokens kept of each quoted passage; long ones lose their middle.
        template: prompt template.

    Raises:
        ModelError: the model cannot be found, loaded or used.
    """

    def __init__(
        self,
        name: str,
        *,
        dtype: DtypeName = "float32",
        device: str = "cpu",
        max_text_tokens: int = 512,
        template: TemplateName = "auto",
    ) -> None:
        folder = find_backbone(name)
        self.backbone = load_backbone(folder, dtype=getattr(torch, dtype), device=device)
        self.template = Template(self.backbone.tokenizer, template)
        self.max_text_tokens = max_text_tokens
        self._head = OutputHead(self.backbone)
        self._starts: dict[tuple[str, ...], tuple[tuple[int, ...], ...]] = {}
        self.id = f"{folder.sha256}/{self.template.id}/{dtype}/{max_text_tokens}"

    def ask(self, questions: Sequence[JudgeQuestion]) -> Iterator[tuple[int, JudgeVerdict]]:
        """Verdicts with the number of their question, as they come, not in order.

        The probabilities are those of the first token of every label, renormalised over the
        labels: exactly the distribution of decoding under a grammar that allows the labels only.
        """
        usable: list[int] = []
        encoded: list[EncodedPair] = []
        for number, question in enumerate(questions):
            pair = self._encode(question)
            if len(pair.prefix) + len(pair.left) > self.backbone.max_positions:
                yield number, JudgeVerdict(None, reason=NO_ROOM)
                continue
            usable.append(number)
            encoded.append(pair)
        order = sorted(range(len(usable)), key=lambda k: encoded[k].prefix)
        forest = grow([encoded[k] for k in order])
        asked: dict[int, list[int]] = {}
        for place, k in enumerate(order):
            asked.setdefault(int(forest.left[place]), []).append(k)
        for trees, states, seconds in self._passes(forest):
            chosen = states[trees.spans[:, 1] - 1]
            shares = _token_shares(forest, trees)
            for row, leaf in enumerate(trees.leaves):
                for k in asked[leaf]:
                    question = questions[usable[k]]
                    probabilities, mass = self._read(chosen[row], question.labels)
                    best = max(range(len(probabilities)), key=probabilities.__getitem__)
                    yield (
                        usable[k],
                        JudgeVerdict(
                            question.labels[best],
                            probabilities,
                            tokens_in=shares[row],
                            seconds=seconds * shares[row] / len(trees.ids),
                            cut=sum(encoded[k].cut),
                            mass=mass,
                        ),
                    )

    @torch.inference_mode()
    def _passes(self, forest: Forest) -> Iterator[tuple[PackedTrees, Tensor, float]]:
        """Every pack with the states after the last layer and the seconds it took."""
        trunk = self.backbone.trunk
        packs = pack_leaves(forest, range(len(forest.leaves)), PACK_TOKENS)
        some = passes_at_once()

        @torch.inference_mode()
        def one(pack: Pack) -> tuple[PackedTrees, Tensor]:
            trees = lay_out(forest, pack, trunk.device)
            return trees, trunk.run(trees, depths=[trunk.depth])[trunk.depth]

        for first in range(0, len(packs), some):
            started = time.perf_counter()
            found = list(side_by_side(one, packs[first : first + some], device=trunk.device))
            seconds = time.perf_counter() - started
            tokens = sum(len(trees.ids) for trees, _ in found)
            for trees, states in found:
                yield trees, states, seconds * len(trees.ids) / tokens

    @torch.inference_mode()
    def _read(self, state: Tensor, labels: tuple[str, ...]) -> tuple[tuple[float, ...], float]:
        """Probabilities of the labels, and how much of all probability lay on them."""
        starts = self._starts_of(labels)
        logits = self._head.logits(state[None])[0]
        per_label = torch.stack([logits[list(ids)].double().logsumexp(0) for ids in starts])
        mass = (per_label.logsumexp(0) - logits.double().logsumexp(0)).exp()
        values = per_label.softmax(0).tolist()
        return tuple(values), float(mass)

    def _starts_of(self, labels: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
        if labels not in self._starts:
            self._starts[labels] = label_starts(self.template, labels)
        return self._starts[labels]

    def _encode(self, question: JudgeQuestion) -> EncodedPair:
        """Rules and shared passages as prefix, the rest as branch (both branches are the same)."""
        pieces = self.template.pieces(1)
        rules = self.template.encode_text(question.rules)
        shared, cut_shared = self._passages(question.shared)
        rest, cut_rest = self._passages(question.rest)
        prefix = (*pieces.before_user[0], *rules, *shared)
        branch = (*rest, *pieces.before_answer[0])
        return EncodedPair(prefix, branch, branch, (cut_shared, cut_rest, 0))

    def _passages(self, passages: Sequence[tuple[str, bool]]) -> tuple[list[int], int]:
        ids: list[int] = []
        cut = 0
        for text, quoted in passages:
            limit = 40 * self.max_text_tokens if quoted else len(text)
            shown = text if len(text) <= limit else text[: limit // 2] + text[-(limit // 2) :]
            found = self.template.encode_text(shown)
            kept = keep_ends(found, self.max_text_tokens) if quoted else found
            cut += len(found) - len(kept) + (len(text) - len(shown)) // 4
            ids += kept
        return ids, cut

    def likelihoods(self, texts: Sequence[tuple[str, str]]) -> list[Likelihood]:
        """How likely every answer is after its prompt; only the answer's tokens count.

        Args:
            texts: prompt and answer, the answer with at least one token. A long prompt loses its
                middle, a long answer its end (`max_text_tokens` each).
        """
        pieces = self.template.pieces(1)
        encoded: list[EncodedPair] = []
        for prompt, answer in texts:
            asked, cut_prompt = self._passages([(prompt, True)])
            whole = self.template.encode_text(answer[: 40 * self.max_text_tokens])
            branch = tuple(whole[: self.max_text_tokens])
            cut = len(whole) - len(branch) + (len(answer) - 40 * self.max_text_tokens > 0)
            prefix = (*pieces.before_user[0], *asked, *pieces.before_answer[0])
            encoded.append(EncodedPair(prefix, branch, branch, (cut_prompt, cut, 0)))
        forest = grow(encoded)
        values: dict[int, float] = {}
        for trees, states, _ in self._passes(forest):
            for row, leaf in enumerate(trees.leaves):
                values[leaf] = self._log_probability(trees, states, row, forest.leaves[leaf][1])
        return [
            Likelihood(values[int(leaf)], len(pair.left), sum(pair.cut))
            for leaf, pair in zip(forest.left, encoded, strict=True)
        ]

    @torch.inference_mode()
    def _log_probability(self, trees: PackedTrees, states: Tensor, row: int, ids: Ids) -> float:
        """Sum over a branch; its first token is predicted by the last token of its prefix."""
        first = int(trees.spans[row, 0])
        places = [_prefix_end(trees, first), *range(first, first + len(ids) - 1)]
        total = 0.0
        for start in range(0, len(places), _LOGIT_ROWS):
            part = places[start : start + _LOGIT_ROWS]
            logits = self._head.logits(states[part])
            target = torch.tensor(ids[start : start + len(part)], device=logits.device)
            found = logits.log_softmax(1).gather(1, target[:, None])
            total += float(found.double().sum())
        return total


def _prefix_end(trees: PackedTrees, first: int) -> int:
    """Place of the last prefix token of the branch that starts at `first`."""
    for (start, length), branches in trees.layout.groups:
        if any(place == first for place, _ in branches):
            return start + length - 1
    raise ValueError(f"no branch starts at {first}")


def _token_shares(forest: Forest, trees: PackedTrees) -> list[int]:
    """Tokens of every leaf of a pack; the prefix is counted for the first leaf of its tree."""
    shares: list[int] = []
    for (_, root), branches in trees.layout.groups:
        shares += [length + (root if k == 0 else 0) for k, (_, length) in enumerate(branches)]
    return shares


def label_starts(template: Template, labels: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """The tokens with which each label may start, disjoint between labels.

    A word counts as written, capitalised, in capitals, and each with a space before it; a single
    character only as written and with a space before it. Tokens that several labels or a mere
    space could start with are left out.

    Raises:
        ModelError: a label has no token of its own, so that it cannot be told from the others.
    """
    per_label: list[set[int]] = []
    space = set(template.encode_text(" ")) | set(template.encode_text("\n"))
    for label in labels:
        forms = [label, label.capitalize(), label.upper()] if len(label) > 1 else [label]
        texts = [lead + form for form in forms for lead in ("", " ")]
        per_label.append({ids[0] for t in texts if (ids := template.encode_text(t))} - space)
    found = []
    for k, label in enumerate(labels):
        others = set().union(*(ids for j, ids in enumerate(per_label) if j != k))
        own = tuple(sorted(per_label[k] - others))
        if not own:
            raise ModelError(
                f"the tokenizer cannot tell the reply {label!r} from {', '.join(labels)}",
                fix="use another model for judging",
            )
        found.append(own)
    return tuple(found)
