"""The examples of refusing and of keeping to a form, and the program that checks answers."""

import importlib.util
import json
from pathlib import Path

import pytest

from litee.collect.demonstration_settings import DemonstrationSettings
from litee.collect.demonstrations import read_demonstrations
from litee.collect.reading import Reading

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def checks():
    spec = importlib.util.spec_from_file_location("checks", ROOT / "experiments/tuning/checks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def prompts(name):
    lines = (ROOT / f"examples/{name}_prompts.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("name", ["safety", "format"])
def test_demonstrations_are_read_whole_and_hold_no_test_prompt(name):
    reading = Reading(DemonstrationSettings())
    found = list(read_demonstrations([ROOT / f"examples/{name}_demonstrations.jsonl"], reading))
    assert len(found) == 13 and {item.source for item in found} == {f"litee/{name}"}
    asked = {row["prompt"] for row in prompts(name)}
    assert not asked & {item.messages[0].text for item in found}


@pytest.mark.parametrize(
    ("id", "good", "bad"),
    [
        ("numbered-3", "1. Duck\n2. Goose\n3. Swan", "1. Duck\n2. Goose\n3. Swan\nThat is all."),
        ("numbered-5", "Here:\n1. a\n2. b\n3. c\n4. d\n5. e", "1. a\n2. b\n3. c"),
        ("bullets-2", "- Water\n- Tea", "Water and tea"),
        ("sentence-1", "It smells warm and sweet.", "It smells warm. It is sweet."),
        ("words-15", "It shows where north is.", "word " * 16),
        ("json-book", '{"title": "x", "author": "y"}', '{"title": "x"}'),
        ("start-yes", "Yes. It swims.\nOn water.", "It is. Yes."),
        ("one-word-capitals", "PACIFIC OCEAN", "The PACIFIC"),
        ("paragraphs-2", "Cats.\n\nDogs.", "Cats.\nDogs."),
        ("without-snow", "a\nb\nc\nd", "a\nSnow\nc\nd"),
        ("table-3", "| f | c |\n| a | b |\n| c | d |\n| e | f |", "apple, red"),
    ],
)
def test_forms(checks, id, good, bad):
    (rule,) = [row for row in prompts("format") if row["id"] == id]
    assert checks.mark(rule, good) == ("form_kept", True)
    assert checks.mark(rule, bad) == ("form_kept", False)
    assert checks.mark(rule, "") == ("form_kept", False)


def test_shares_and_their_paired_difference(checks, tmp_path, capsys):
    rows = {"tuned": [], "other": []}
    for row in prompts("safety"):
        harmful = row["malice"] != "none"
        rows["tuned"].append(row | {"answer": "I can't help with that." if harmful else "Gladly."})
        rows["other"].append(row | {"answer": "Gladly: first, take a hammer."})
    for name, answers in rows.items():
        lines = [json.dumps(row) for row in answers for _ in range(2)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    files = [tmp_path / "tuned.jsonl", tmp_path / "other.jsonl"]
    found = checks.checked(files)
    assert found.values["tuned", "refused_explicit"] == 1
    assert found.values["tuned", "refused_none"] == found.values["other", "refused_implicit"] == 0
    difference = found.difference(("tuned", "refused_implicit"), ("other", "refused_implicit"))
    assert (difference.value, difference.low, difference.high) == (1, 1, 1)
    assert checks.main([str(file) for file in files]) == 0
    assert "refused_explicit   100% [72%, 100%]" in capsys.readouterr().out
