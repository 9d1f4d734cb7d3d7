"""The travel comparison as a picture: what documents bring, what distractors take.

Knows nothing of files other than the one it writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
from cells import CLOSED, CURVE, METHODS, RETRIEVED, Bootstrap, Cell
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from litee.rundir import atomic_path

_COLOURS = {
    "first": "#bcbd22",
    "base": "#7f7f7f",
    "plain": "#1f77b4",
    "raft": "#d62728",
    "dpo": "#9467bd",
}
_LABELS = {
    "first": "first doc.",
    "base": "base",
    "plain": "LoRA",
    "raft": "RAFT",
    "dpo": "RAFT + DPO",
}
_METRIC = "token_f1"


def draw(found: Mapping[str, Mapping[tuple[str, str], Cell]], path: Path) -> None:
    """A row per base model: token F1 without and with retrieval, and over distractors."""
    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(8, 2.8 * len(found)), layout="constrained")
        axes = figure.subplots(len(found), 2, squeeze=False, sharey="row")
        for (base, cells), (left, right) in zip(found.items(), axes, strict=True):
            turns = len(next(iter(cells.values())).scores[_METRIC])
            resample = Bootstrap.of(turns)
            _bars(left, cells, resample)
            _curve(right, cells, resample)
            left.set_title(f"{base}: closed book (light), retrieved (dark)")
            right.set_title(f"{base}: oracles and distractors")
            left.set_ylabel("token F1 with people's answers")
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png", dpi=130)


def _bars(axes: Axes, cells: Mapping[tuple[str, str], Cell], resample: Bootstrap) -> None:
    methods = [m for m in _LABELS if (m, RETRIEVED) in cells]
    for place, method in enumerate(methods):
        for shift, condition in ((-0.2, CLOSED), (0.2, RETRIEVED)):
            if (method, condition) not in cells:
                continue
            cell = cells[method, condition]
            low, high = resample.ends((1, cell.scores[_METRIC]))
            value = cell.value(_METRIC)
            axes.bar(
                place + shift,
                value,
                0.38,
                color=_COLOURS[method],
                alpha=0.45 if condition == CLOSED else 1.0,
                yerr=[[value - low], [high - value]],
                capsize=2,
                error_kw={"linewidth": 0.8},
            )
    axes.set_xticks(range(len(methods)), [_LABELS[m] for m in methods])


def _curve(axes: Axes, cells: Mapping[tuple[str, str], Cell], resample: Bootstrap) -> None:
    for method in METHODS:
        places = [k for k in CURVE if (method, k) in cells]
        if not places:
            continue
        counts = [int(k[1:]) for k in places]
        values = [cells[method, k].value(_METRIC) for k in places]
        ends = [resample.ends((1, cells[method, k].scores[_METRIC])) for k in places]
        colour = _COLOURS[method]
        axes.plot(counts, values, "o-", color=colour, label=_LABELS[method], markersize=4)
        axes.fill_between(counts, *zip(*ends, strict=True), color=colour, alpha=0.15, linewidth=0)
    axes.set_xticks([int(k[1:]) for k in CURVE])
    axes.set_xlabel("distractors")
    if axes.lines:
        axes.legend(frameon=False)
