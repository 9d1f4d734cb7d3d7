"""Writes a judge's member as a plain sequence-classification model: TRL and vLLM load it as is.

Knows nothing of votes and training; how the weights are made is in `predict.reward_classifier`.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from litee.encode.templates import Template
from litee.errors import ModelError
from litee.finetune.backbones import Backbone, find_backbone, load_backbone, quiet
from litee.finetune.branch import load_head
from litee.finetune.chat_model import known_warnings
from litee.finetune.heads import RewardHead
from litee.predict.artifact import BackboneEntry, JudgeFile, MemberEntry, load_judge_file
from litee.predict.reward_classifier import build_classifier
from litee.predict.runner import pair_encoder
from litee.records import Pair
from litee.rundir import write_error, write_json

#: Rewards of the export and of the member may differ by this much, in nats.
TOLERANCE = 1e-4

#: What the export is tried on beside the template: short, long, of one letter, with digits.
_TRIALS = (
    Pair("1", ("Is it far?",), ("No, it is ten minutes on foot.",), ("I am sorry, I can't say.",)),
    Pair("2", ("List three rivers.",), ("- Main\n- Oder\n- Po",), ("Rivers are long.",)),
    Pair("3", ("2 + 2 = ?",), ("4",), ("x",)),
    Pair("4", ("Tell me more.",), ("More and more and more. " * 6,), ("No.",)),
)


@dataclass(frozen=True, slots=True)
class Exported:
    """A written reward model.

    Attributes:
        folder: config, safetensors and tokenizer.
        member: the judge's member it equals.
        largest_difference: of its rewards and the member's on trial texts, in nats.
    """

    folder: Path
    member: str
    largest_difference: float


@dataclass(frozen=True, slots=True)
class _Trial:
    """A trial text: (1, tokens) ids, and the (hidden,) raw state that the member reads."""

    ids: Tensor
    state: Tensor


def export_reward(judge: Path, out: Path, *, member: str = "") -> Exported:
    """Write one member of a judge as a model for `AutoModelForSequenceClassification`.

    Its one logit is the member's reward (`MemberOutput.rewards`) of the conversation that the
    tokenizer's chat template renders, as long as the judge's token budget cuts nothing. A special
    token that is spelled in a text is read as one, which the judge does not do.

    Args:
        judge: its folder.
        out: folder to make; it appears only when it is complete and equal.
        member: a member's name; "" takes the one with the largest weight that can be exported.

    Raises:
        ModelError: no such member, one that a sequence classifier cannot hold, or an export
            that differs by more than `TOLERANCE`.
    """
    if out.exists() and any(out.iterdir()):
        raise ModelError("the folder is not empty", place=str(out), fix="choose a new --out folder")
    file = load_judge_file(judge)
    chosen = _choose(file, judge, member)
    entry = file.backbone(str(chosen.backbone))
    backbone = _backbone(entry, chosen.depth or entry.exit_depth)
    own = judge / "members" / chosen.name
    own = own / chosen.branches[0] if chosen.branches else own
    head = cast(RewardHead, load_head(chosen.head, own / "head.safetensors"))
    decoder = _decoder(backbone, own if chosen.kind == "lora" else None)
    tokenizer = _tokenizer(backbone.tokenizer, entry)
    trials = _trials(decoder, tokenizer, backbone, entry)
    if not trials:
        raise ModelError(
            f"a budget of {entry.max_tokens} tokens cuts every text the export is tried on",
            place=str(judge),
            fix="fit a judge with a larger --max-tokens, and export that",
        )
    size = max(float(trial.state.norm()) for trial in trials)
    model = build_classifier(
        decoder,
        head,
        size=size,
        pad_token=cast(int, tokenizer.pad_token_id),
        positions=backbone.max_positions,
    )
    difference = _difference(model, head, trials)
    if not difference <= TOLERANCE:
        raise ModelError(
            f"the exported rewards differ by {difference:.2g}, more than {TOLERANCE:g}",
            place=f"{judge}, member {chosen.name}",
            fix="export another --member",
        )
    _save(model, tokenizer, out, chosen, difference)
    return Exported(out, chosen.name, difference)


def _backbone(entry: BackboneEntry, depth: int) -> Backbone:
    found = find_backbone(entry.name)
    if found.sha256 != entry.sha256:
        raise ModelError(
            "the backbone's weights are not those the judge was fitted on",
            place=entry.name,
            fix="get the same revision of the backbone, or fit the judge again",
        )
    return load_backbone(found, depth=depth, dtype=torch.float32)


def _choose(file: JudgeFile, judge: Path, wanted: str) -> MemberEntry:
    weights = dict(zip(file.ensemble.members, file.ensemble.weights, strict=True))
    named = [m for m in file.members if m.name == wanted] if wanted else list(file.members)
    if not named:
        known = ", ".join(m.name for m in file.members)
        raise ModelError(f"no member {wanted!r}", place=str(judge), fix=f"name one of {known}")
    reasons = {m.name: _cannot(m, file) for m in named}
    fit = [m for m in named if not reasons[m.name]]
    if not fit:
        raise ModelError(
            "; ".join(f"{name}: {reason}" for name, reason in reasons.items()),
            place=str(judge),
            fix="fit a judge with --members probe --pooling last --no-answer-length, "
            "and export that",
        )
    return max(fit, key=lambda m: weights[m.name])


def _cannot(member: MemberEntry, file: JudgeFile) -> str:
    """Why a sequence classifier cannot hold the member; "" when it can."""
    if member.kind == "statistics":
        return "text statistics are no transformer"
    if member.sources:
        return "it has a head per source of votes"
    if member.encoder != "tree":
        return "joint and verdict members have no reward"
    if member.pooling != "last":
        return f"it reads {member.pooling} states, a sequence classifier the last one only"
    if member.answer_length:
        return "it reads the length of an answer, a sequence classifier its states only"
    if len(member.branches) > 1:
        return f"it is the mean of {len(member.branches)} branches"
    if file.backbone(str(member.backbone)).prompt_share == 0:
        return "it does not see the prompt, a sequence classifier does"
    return ""


def _decoder(backbone: Backbone, adapter: Path | None) -> PreTrainedModel:
    """The layers up to the exit depth, with the member's LoRA weights put in."""
    decoder = backbone.trunk.decoder
    decoder.config._attn_implementation = "eager"
    if adapter is None:
        return decoder
    with known_warnings():
        return cast(
            PreTrainedModel, PeftModel.from_pretrained(decoder, str(adapter)).merge_and_unload()
        )


def _tokenizer(tokenizer: PreTrainedTokenizerBase, entry: BackboneEntry) -> PreTrainedTokenizerBase:
    """The backbone's, with a template that ends where the member reads, and padding of its own.

    Sequence classifiers read the last token that is not padding, so the token that ends an answer
    must not pad.
    """
    kept = copy.deepcopy(tokenizer)
    template = Template(kept, "chat" if entry.template.startswith("chat") else "plain")
    if template.name == "chat":
        text = str(kept.chat_template)
        kept.chat_template = "{%- set rendered -%}" + text + "{%- endset -%}{{ rendered.rstrip() }}"
    else:
        bos, eos = kept.bos_token or "", kept.eos_token or "\n\n"
        kept.chat_template = _plain_template(bos, eos)
    pieces = template.pieces(2)
    used = {k for part in (*pieces.before_user, *pieces.before_answer, pieces.end) for k in part}
    specials = [*kept.all_special_ids, *kept.added_tokens_decoder]
    free = [k for k in specials if k not in used]
    if not free:
        raise ModelError("the vocabulary has no special token left for padding", place=entry.name)
    kept.pad_token = str(kept.convert_ids_to_tokens(free[0]))
    return kept


def _plain_template(bos: str, eos: str) -> str:
    """The plain template of `encode.templates` in Jinja."""
    return (
        (
            "{{ BOS }}{% for message in messages %}{% if message['role'] == 'user' %}"
            "{% if not loop.first %}{{ '\\n\\n' }}{% endif %}"
            "{{ 'Question: ' + message['content'] + '\\n\\nAnswer: ' }}"
            "{% else %}{{ message['content'] }}{% endif %}{% endfor %}{{ EOS }}"
        )
        .replace("BOS", json.dumps(bos))
        .replace("EOS", json.dumps(eos))
    )


def _trials(
    decoder: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    backbone: Backbone,
    entry: BackboneEntry,
) -> list[_Trial]:
    """The trial texts as the exported template renders them, which must be what the judge reads."""
    encoder = pair_encoder(backbone, entry, "tree")
    found = []
    for pair in _TRIALS:
        encoded = encoder.encode(pair)
        if any(encoded.cut):
            continue
        for branch, answers in ((encoded.left, pair.response_a), (encoded.right, pair.response_b)):
            talk = [
                {"role": "user", "content": pair.prompt[0]},
                {"role": "assistant", "content": answers[0]},
            ]
            text = str(tokenizer.apply_chat_template(talk, tokenize=False))
            ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
            if ids[0].tolist() != [*encoded.prefix, *branch]:
                raise ModelError(
                    "the chat template renders other tokens than the judge reads",
                    place=entry.name,
                    fix="fit the judge with --template plain, and export that",
                )
            with torch.no_grad():
                found.append(_Trial(ids, _raw_states(decoder, ids)[0, -1]))
    return found


def _difference(model: PreTrainedModel, head: RewardHead, trials: Sequence[_Trial]) -> float:
    """Largest difference of the export's rewards and the member's, in nats."""
    with torch.no_grad():
        own = head.reward(torch.stack([trial.state for trial in trials]))
        found = torch.cat([model(input_ids=trial.ids).logits[0] for trial in trials])
    return float((own - found).abs().max())


def _raw_states(decoder: PreTrainedModel, ids: Tensor) -> Tensor:
    """(1, tokens, hidden) after the last layer, before the norm."""
    seen: list[Tensor] = []

    def keep(_: nn.Module, __: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]) -> None:
        seen.append(output[0] if isinstance(output, tuple) else output)

    layers = cast(nn.ModuleList, decoder.layers)
    handle = layers[-1].register_forward_hook(keep)
    try:
        decoder(input_ids=ids, use_cache=False)
    finally:
        handle.remove()
    return seen[0]


def _save(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    out: Path,
    member: MemberEntry,
    difference: float,
) -> None:
    scratch = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        with quiet():
            model.save_pretrained(scratch)
            tokenizer.save_pretrained(scratch)
            AutoConfig.from_pretrained(scratch)
        write_json(
            scratch / "litee.json", {"member": member.name, "largest_difference": difference}
        )
    except OSError as error:
        raise write_error(error, out) from error
    if out.exists():
        out.rmdir()
    scratch.replace(out)
