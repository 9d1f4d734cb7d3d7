"""A judge written member by member over a tiny model, without the fitting code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from litee.config import FitSettings
from litee.encode.budget import TokenBudget
from litee.encode.forest import PairEncoder
from litee.encode.templates import TEMPLATE_VERSION, Template
from litee.finetune.adapters import Adapters
from litee.finetune.attention_pooling import load_query, save_query
from litee.finetune.backbones import find_backbone, load_backbone
from litee.finetune.branch import load_head, save_head
from litee.finetune.heads import make_head
from litee.finetune.statistics import statistics_states
from litee.predict.artifact import BackboneEntry, JudgeFile, MemberEntry, save_judge_file
from litee.predict.calibration import Calibration
from litee.predict.ensemble import Ensemble
from litee.records import Pair
from tiny_models import plain_states

EXIT, START, TOKENS = 3, 1, 60
SETTINGS = FitSettings(lora_r=3, lora_alpha=6, lora_dropout=0.1)
SCALING = Calibration(name="vector", scale=0.8, tie_scale=0.9, tie_bias=0.2)

PAIRS = (
    Pair("1", ("Is it far?",), ("No, ten minutes.",), ("I am sorry, I do not know.",)),
    Pair("2", ("Is it far?",), ("I am sorry, I do not know.",), ("No.",)),
    Pair("3", ("Hi", "And then?"), ("Hello.", "- one\n- two"), ("Hi!", "")),
    Pair("4", ("q" * 50,), ("a" * 90,), ("b" * 20,)),
    Pair("5", ("Same",), ("equal",), ("equal",)),
)

ALL_MEMBERS = ("statistics", "probe", "shallow", "start", "lora", "joint", "joint-lora")
KINDS = {
    kind: MemberEntry(name=kind, backbone="to be set", **given)
    for kind, given in {
        "statistics": {"kind": "statistics"},
        "probe": {"kind": "probe", "encoder": "tree", "pooling": "last+mean"},
        "shallow": {"kind": "probe", "encoder": "tree", "pooling": "last+mean", "depth": 2},
        "start": {"kind": "probe", "encoder": "tree", "pooling": "mean", "depth": START},
        "lora": {
            "kind": "lora",
            "encoder": "tree",
            "start_depth": START,
            "branches": ("fold0", "fold1", "fold2"),
        },
        "attending": {
            "kind": "lora",
            "encoder": "tree",
            "pooling": "last+mean",
            "branch_pooling": "attention",
            "start_depth": START,
            "branches": ("fold0", "fold1"),
        },
        "joint": {"kind": "probe", "encoder": "joint", "head": "joint"},
        "joint-lora": {
            "kind": "lora",
            "encoder": "joint",
            "head": "joint",
            "start_depth": START + 1,
            "branches": ("final",),
        },
    }.items()
}


@dataclass(frozen=True)
class TinyJudge:
    """Where a judge and its model lie, and its description."""

    folder: Path
    model: Path
    file: JudgeFile


def write_judge(
    folder: Path,
    model: Path,
    members=ALL_MEMBERS,
    *,
    weights=None,
    pool="log",
    calibration=SCALING,
    names=None,
    head="davidson",
) -> TinyJudge:
    """Random heads and adapters; `names` renames members, `head` is that of tree members."""
    found = find_backbone(str(model))
    backbone = load_backbone(found, depth=EXIT)
    adapters = Adapters(backbone.trunk, start=START, settings=SETTINGS, backbone=found.name)
    entries = []
    for seed, kind in enumerate(members):
        entry = KINDS[kind].model_copy(update={"name": (names or {}).get(kind, kind)})
        backbone_name = None if kind == "statistics" else found.name
        entry = entry.model_copy(update={"backbone": backbone_name})
        if entry.encoder == "tree":
            entry = entry.model_copy(update={"head": head})
        target = folder / "members" / entry.name
        width = 30 if kind == "statistics" else 32 * len(entry.pooling.split("+"))
        if entry.kind != "lora":
            save_head(_random_head(entry.head, width, seed), target / "head.safetensors")
        for number, branch in enumerate(entry.branches):
            head_of = _random_head(entry.head, width, seed + 10 * number)
            save_head(head_of, target / branch / "head.safetensors")
            parameters = adapters.add(
                f"a{seed}{branch}", seed=seed + number, start=entry.start_depth
            )
            with torch.no_grad():
                for parameter in parameters.values():
                    parameter.add_(0.1 - 0.04 * number)
            adapters.save(f"a{seed}{branch}", target / branch)
            if entry.branch_pooling == "attention":
                rng = torch.Generator().manual_seed(seed + number)
                save_query(torch.randn(32, generator=rng), target / branch)
        entries.append(entry)
    weights = weights or [1 / len(entries)] * len(entries)
    exponent = 0.5 if pool == "power" else 1.0
    file = JudgeFile(
        backbones=(
            BackboneEntry(
                name=found.name,
                sha256=found.sha256,
                dtype="float32",
                exit_depth=EXIT,
                template=f"chat-v{TEMPLATE_VERSION}",
                max_tokens=TOKENS,
                prompt_share=0.2,
            ),
        ),
        members=tuple(entries),
        ensemble=Ensemble(
            members=tuple(e.name for e in entries),
            weights=tuple(weights),
            pool=pool,
            exponent=exponent,
            calibration=calibration,
        ),
    )
    save_judge_file(file, folder)
    return TinyJudge(folder, model, file)


def _random_head(name, width, seed):
    head = make_head(name, width)
    rng = torch.Generator().manual_seed(seed + 77)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=rng) * width**-0.5 * 0.7)
        head.standardise(torch.randn(20, width, generator=rng) * 2 + 0.3)
    return head


def by_hand(judge: TinyJudge, pairs):
    """Member name → (pairs, 3) probabilities, through plain transformers and PEFT sequences."""
    return {m.name: _member(judge, m, pairs) for m in judge.file.members}


def _member(judge, entry, pairs):
    target = judge.folder / "members" / entry.name
    if entry.branches:
        logs = [np.log(_reader(judge, entry, pairs, target / b)) for b in entry.branches]
        mean = np.exp(np.mean(logs, axis=0))
        return mean / mean.sum(1, keepdims=True)
    return _reader(judge, entry, pairs, target)


def _reader(judge, entry, pairs, target):
    head = load_head(entry.head, target / "head.safetensors")
    if entry.kind == "statistics":
        data = statistics_states(pairs)
        sides = [torch.from_numpy(data.states[s]) for s in (data.left, data.right)]
    else:
        model = AutoModelForCausalLM.from_pretrained(judge.model, attn_implementation="eager")
        if entry.kind == "lora":
            PeftModel.from_pretrained(model.get_decoder(), str(target)).eval()
        model.eval()
        encoded = [encoder(judge, entry.encoder).encode(pair) for pair in pairs]
        sides = [
            torch.stack([_pooled(model, e.prefix, ids, entry, target) for e, ids in side])
            for side in ([(e, e.left) for e in encoded], [(e, e.right) for e in encoded])
        ]
    with torch.inference_mode():
        return head(*sides).exp().double().numpy()


def encoder(judge, kind):
    """The pair encoder of the judge's one backbone, built from its parts."""
    backbone = load_backbone(find_backbone(str(judge.model)), depth=1)
    budget = TokenBudget(TOKENS, (0.2, 0.4, 0.4))
    return PairEncoder(Template(backbone.tokenizer, "chat"), budget, encoder=kind)


def _pooled(model, prefix, ids, entry, target):
    with torch.inference_mode():
        states = plain_states(model, [*prefix, *ids])[entry.depth or EXIT][-len(ids) :]
    weights = torch.full((len(ids),), 1 / len(ids))
    if entry.branch_pooling == "attention":
        weights = (states @ load_query(target) / 32**0.5).softmax(0)
    both = {"last": states[-1], "mean": weights @ states}
    return torch.cat([both[part] for part in entry.pooling.split("+")])


def joined(file: JudgeFile, members):
    """The log pool and the vector scaling, written out."""
    ensemble = file.ensemble
    logits = sum(
        w * np.log(members[name])
        for name, w in zip(ensemble.members, ensemble.weights, strict=True)
    )
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    scaling = ensemble.calibration
    logits = np.log(p) * [scaling.scale, scaling.scale, scaling.tie_scale]
    logits[:, 2] += scaling.tie_bias
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
