"""The examples of refusing and of keeping to a form."""

import json
from pathlib import Path

import pytest

from litee.collect.demonstration_settings import DemonstrationSettings
from litee.collect.demonstrations import read_demonstrations
from litee.collect.reading import Reading

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.mark.parametrize("name", ["safety", "format"])
def test_demonstrations_are_read_whole_and_hold_no_test_prompt(name):
    reading = Reading(DemonstrationSettings())
    found = list(read_demonstrations([EXAMPLES / f"{name}_demonstrations.jsonl"], reading))
    assert len(found) == 13 and {item.source for item in found} == {f"litee/{name}"}
    lines = (EXAMPLES / f"{name}_prompts.jsonl").read_text().splitlines()
    asked = {json.loads(line)["prompt"] for line in lines}
    assert not asked & {item.messages[0].text for item in found}
