"""A virtual environment of its own for every peer, outside the repository, made once.

They lie in $LITEE_BENCH, or ~/.cache/litee-bench. Torch is the version of constraints.txt in all;
the rest is what pip resolves for the peer's release. Knows nothing of votes and of measuring.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from litee.errors import ModelError

Peer = Literal["pairjudge", "trainer", "trl", "rewarduq", "litee"]

REPOSITORY = Path(__file__).resolve().parents[2]
CONSTRAINTS = REPOSITORY / "constraints.txt"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a peer is installed and what is reported of it.

    Attributes:
        environment: folder of its virtual environment.
        requirements: what pip is asked for, besides torch.
        pinned: whether constraints.txt applies to all of it, not to torch alone.
        binary: it knows no ties.
        package: the package whose version is the peer's.
    """

    environment: str
    requirements: tuple[str, ...]
    pinned: bool
    binary: bool
    package: str


#: pairjudge wants huggingface-hub < 2, so constraints.txt cannot hold for it. rewarduq 0.1.0 asks
#: for trl 0.23, which does not import with transformers 5.
RECIPES: dict[Peer, Recipe] = {
    "pairjudge": Recipe("pairjudge", ("pairjudge[train]==0.3.0",), False, False, "pairjudge"),
    "trainer": Recipe("trl", ("trl", "peft"), True, False, "transformers"),
    "trl": Recipe("trl", ("trl", "peft"), True, True, "trl"),
    "rewarduq": Recipe("rewarduq", ("rewarduq==0.1.0", "transformers<5"), False, True, "rewarduq"),
}


def bench_folder() -> Path:
    """$LITEE_BENCH, or ~/.cache/litee-bench."""
    named = os.environ.get("LITEE_BENCH")
    return Path(named) if named else Path.home() / ".cache" / "litee-bench"


def torch_requirement(constraints: str) -> str:
    r"""The torch pin without its build tag, e.g. `torch==2.13.0`.

    >>> torch_requirement("numpy==2.4.6\ntorch==2.13.0+cpu\n")
    'torch==2.13.0'
    """
    found = re.search(r"^torch==([\d.]+)", constraints, re.MULTILINE)
    if found is None:
        raise ModelError("torch is not pinned", place="constraints.txt", fix="pin it")
    return f"torch=={found.group(1)}"


def environment(peer: Peer) -> Path:
    """The Python of a peer's environment; made when missing or when its recipe has changed.

    Raises:
        ModelError: pip could not install the peer.
    """
    recipe = RECIPES[peer]
    folder = bench_folder() / recipe.environment
    python = folder / "venv" / "bin" / "python"
    torch = torch_requirement(CONSTRAINTS.read_text(encoding="utf-8"))
    wanted = {
        "python": sys.version.split()[0],
        "requirements": [torch, *recipe.requirements],
        "constraints": CONSTRAINTS.read_text(encoding="utf-8") if recipe.pinned else "",
    }
    ready = folder / "ready.json"
    if ready.exists() and python.exists():
        if json.loads(ready.read_text(encoding="utf-8")) == wanted:
            return python
        ready.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    if not python.exists():
        venv.create(folder / "venv", with_pip=True)
    pins = ("--constraint", str(CONSTRAINTS))
    _pip(python, peer, *pins, torch)
    _pip(python, peer, *(pins if recipe.pinned else ()), torch, *recipe.requirements)
    ready.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")
    return python


def _pip(python: Path, peer: Peer, *arguments: str) -> None:
    command = [str(python), "-m", "pip", "install", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        problem = f"pip could not install it: {' '.join(last) or done.stderr[-300:]}"
        raise ModelError(problem, place=peer, fix="leave this peer out, or install by hand")
