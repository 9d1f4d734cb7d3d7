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

#: Runs `litee` and then tells the CPU time and the modules that it took.
PROBE = """
import json, os, sys
sys.argv = ["litee", *sys.argv[1:]]
code = 0
try:
    from litee.cli import main
    main()
except SystemExit as stop:
    code = stop.code or 0
times = os.times()
names = sorted({name.split(".")[0] for name in sys.modules})
sys.stderr.write(json.dumps([code, times.user + times.system, names]))
"""


def call(*arguments: str) -> tuple[int, float, set[str], str]:
    """Exit code, CPU seconds, top-level modules and standard output of a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True, check=True
    )
    code, seconds, modules = json.loads(done.stderr.splitlines()[-1])
    return code, seconds, set(modules), done.stdout


def test_help_takes_half_a_second_of_a_processor():
    """The least of three, in CPU time: other work on the machine counts for nothing."""
    code, _, modules, out = call("--help")
    assert code == 0
    assert not modules & set(HEAVY)
    for verb in VERBS:
        assert f" {verb} " in out
    assert min(call("--help")[1] for _ in range(3)) < 0.5


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_loads_nothing_heavy(verb):
    code, _, modules, out = call(verb, "--help")
    assert code == 0
    assert "Usage: litee" in out or "Usage:" in out
    assert not modules & set(HEAVY)


def test_reading_votes_loads_no_torch(votes):
    code, _, modules, out = call("data", "inspect", str(votes), "--json")
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
