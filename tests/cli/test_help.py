"""`litee --help` answers at once, and what each verb may import before it works."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

LIBRARIES = (
    "torch transformers peft safetensors sklearn scipy numpy pandas pyarrow datasketch matplotlib "
    "jinja2 huggingface_hub"
)
HEAVY = LIBRARIES.split()

VERBS = ("fit", "predict", "evaluate", "data", "score", "agree", "rank", "audit", "study", "doctor")

#: Runs `litee` and then tells the modules that it took.
PROBE = """
import json, sys
sys.argv = ["litee", *sys.argv[1:]]
code = 0
try:
    from litee.cli import main
    main()
except SystemExit as stop:
    code = stop.code or 0
names = sorted({name.split(".")[0] for name in sys.modules})
sys.stderr.write(json.dumps([code, names]))
"""


def call(*arguments: str) -> tuple[int, set[str], str]:
    """Exit code, top-level modules and standard output of a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True, check=True
    )
    code, modules = json.loads(done.stderr.splitlines()[-1])
    return code, set(modules), done.stdout


def test_help_loads_little():
    """The number of libraries, 161 with Python's own, stands for the time, which varies."""
    code, modules, out = call("--help")
    assert code == 0
    assert not modules & set(HEAVY)
    for verb in VERBS:
        assert f" {verb} " in out
    assert len(modules) < 200


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_loads_nothing_heavy(verb):
    code, modules, out = call(verb, "--help")
    assert code == 0
    assert "Usage: litee" in out or "Usage:" in out
    assert not modules & set(HEAVY)


def test_reading_votes_loads_no_torch(votes):
    code, modules, out = call("data", "inspect", str(votes), "--json")
    assert code == 0
    assert json.loads(out)["votes"] == 30
    assert not modules & {"torch", "transformers", "peft"}


@pytest.mark.parametrize("arguments", [("nothing",), ("fit",), ("fit", "--nothing"), ("predict",)])
def test_wrong_words_are_refused_by_name(arguments):
    from commands import litee

    done = litee(*arguments)
    assert done.code == 2
    assert done.out == ""
    assert "Traceback" not in done.err
    assert "Usage:" in done.err


def test_help_of_fit_tells_each_default():
    from commands import litee

    from litee.config import FitSettings

    done = litee("fit", "--help")
    assert done.code == 0
    words = " ".join(done.out.replace("│", " ").split())
    for name in ("folds", "lora_r", "max_tokens", "seed"):
        assert f"(default: {getattr(FitSettings(), name)})" in words
