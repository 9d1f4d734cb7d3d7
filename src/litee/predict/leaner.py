"""Settings with one thing less after the other, what costs most for the least first.

Knows nothing of seconds and bytes; `plan` asks for the next until one fits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from litee.config import ENCODER_MEMBERS, FitSettings

if TYPE_CHECKING:
    from litee.predict.plan import Measured


def lighter(
    settings: FitSettings, measured: Sequence[Measured], *, checkpoint: bool
) -> Iterator[tuple[FitSettings, tuple[str, ...]]]:
    """Leaner settings; where memory is bounded, each also with LoRA layers computed twice."""
    for changed, said in _leaner(settings, measured):
        yield changed, said
        if checkpoint and changed.tuned and not changed.gradient_checkpointing:
            update = {"gradient_checkpointing": True}
            words = "LoRA layers are computed twice (gradient_checkpointing)"
            yield changed.model_copy(update=update), (*said, words)


def _leaner(
    settings: FitSettings, measured: Sequence[Measured]
) -> Iterator[tuple[FitSettings, tuple[str, ...]]]:
    """The settings as asked for, and then one thing less after the other."""
    said: tuple[str, ...] = ()
    yield settings, said

    def less(words: str, **update: object) -> tuple[FitSettings, tuple[str, ...]]:
        return FitSettings.model_validate(settings.model_dump() | update), (*said, words)

    others = {m for m in settings.members if m.startswith(("joint", "verdict"))}
    if others and "probe" in settings.members:
        rest = tuple(m for m in settings.members if m not in others)
        settings, said = less("answers apart only", members=rest, verdict_shots=0)
        yield settings, said
    while settings.num_train_epochs > 1 and settings.tuned:
        settings, said = less("one epoch less", num_train_epochs=settings.num_train_epochs - 1)
        yield settings, said
    while settings.tuned and settings.lora_layers > 1:
        settings, said = less("fewer LoRA layers", lora_layers=settings.lora_layers // 2)
        yield settings, said
    if settings.tuned:
        frozen = {tuned: untuned for untuned, tuned in ENCODER_MEMBERS.values()}
        rest = tuple(dict.fromkeys(frozen.get(m, m) for m in settings.members))
        settings, said = less("no LoRA", members=rest)
        yield settings, said
    costly = sorted(measured, key=lambda m: -m.rates.frozen * m.layers)
    for backbone in costly[:-1]:
        names = tuple(name for name in settings.backbones if name != backbone.name)
        depth = settings.depth
        kept = {n: d for n, d in depth.items() if n in names} if isinstance(depth, dict) else depth
        settings, said = less(f"without {backbone.name}", backbones=names, depth=kept)
        yield settings, said
    searched = settings.depth == "auto" and not settings.encodes("verdict")
    if searched and settings.probe_pairs > 200:
        settings, said = less("200 pairs choose the exit depth", probe_pairs=200)
        yield settings, said
    if searched and costly:
        settings, said = less("exit at half of the layers", depth=max(2, costly[-1].layers // 2))
        yield settings, said
    if "statistics" in settings.members and len(settings.members) > 1:
        alone = {"members": ("statistics",), "backbones": (), "verdict_shots": 0, "depth": "auto"}
        settings, said = less("text statistics alone", **alone)
        yield settings, said
