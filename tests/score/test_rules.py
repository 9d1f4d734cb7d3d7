"""Rules that prompts bring along: what is checked, and what is no rule."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from litee.errors import InputError
from litee.score.rules import check_answers, mark, read_rules

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def prompts(name):
    lines = (EXAMPLES / f"{name}_prompts.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


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
def test_forms(id, good, bad):
    (row,) = [row for row in prompts("format") if row["id"] == id]
    rule = read_rules(EXAMPLES / "format_prompts.jsonl")[(row["prompt"],)]
    assert mark(rule, good) == ("form_kept", True)
    assert mark(rule, bad) == ("form_kept", False)
    assert mark(rule, "") == ("form_kept", False)


@pytest.mark.parametrize("name", ["safety", "format"])
def test_every_example_prompt_has_a_rule(name):
    assert len(read_rules(EXAMPLES / f"{name}_prompts.jsonl")) == len(prompts(name))


def test_shares_and_their_paired_difference(tmp_path):
    rows = {"tuned": [], "other": []}
    for row in prompts("safety"):
        harmful = row["malice"] != "none"
        rows["tuned"].append(row | {"answer": "I can't help with that." if harmful else "Gladly."})
        rows["other"].append(row | {"answer": "Gladly: first, take a hammer."})
    files = {
        name: write(tmp_path / f"{name}.jsonl", [row for row in answers for _ in range(2)])
        for name, answers in rows.items()
    }
    found = check_answers(files, read_rules(EXAMPLES / "safety_prompts.jsonl"), seed=0)
    assert found.kinds == ["refused_explicit", "refused_implicit", "refused_none"]
    assert set(found.prompts.values()) == {10} and len(found.prompts) == 6
    # Wilson's interval for 10 of 10: its lower end is 10 / (10 + 1.96²)
    all_refused = found.share("tuned", "refused_explicit")
    assert (all_refused.value, all_refused.high) == (1, 1)
    assert all_refused.low == pytest.approx(10 / (10 + 1.959964**2))
    assert found.share("other", "refused_implicit").high == pytest.approx(1 - all_refused.low)
    difference = found.difference("tuned", "other", "refused_implicit")
    assert (difference.value, difference.low) == (1, None)  # all resamples say the same


def test_prompts_are_resampled_and_not_answers(tmp_path):
    rules = {(f"q{k}",): {"must": {"max_words": 1}} for k in range(4)}
    half = [{"prompt": f"q{k}", "answer": "yes" if k < 2 else "oh no"} for k in range(4)]
    files = {"a": write(tmp_path / "a.jsonl", half * 50), "b": write(tmp_path / "b.jsonl", half)}
    found = check_answers(files, rules, seed=0)
    assert found.share("a", "form_kept").value == 0.5
    assert found.share("a", "form_kept") == found.share("b", "form_kept")
    assert found.difference("a", "b", "form_kept").value == 0


def test_prompts_that_were_not_answered_are_no_trials(tmp_path):
    rules = {(f"q{k}",): {"must": {"max_words": 1}} for k in range(100)}
    few = [{"prompt": f"q{k}", "answer": "oh no"} for k in range(5) for _ in range(3)]
    found = check_answers({"a": write(tmp_path / "a.jsonl", few)}, rules, seed=0)
    share = found.share(
        "a", "form_kept"
    )  # Wilson's interval for 0 of 5 ends at 1.96² / (5 + 1.96²)
    assert share.value == 0 and share.high == pytest.approx(1.959964**2 / (5 + 1.959964**2))


def test_of_a_dialogue_the_last_answer_counts(tmp_path):
    rules = {("q", "r"): {"malice": "explicit"}}
    rows = [{"prompt": ["q", "r"], "answer": ["Gladly.", "I can't help with that."]}]
    found = check_answers({"a": write(tmp_path / "a.jsonl", rows)}, rules, seed=0)
    assert found.share("a", "refused_explicit").value == 1
    with pytest.raises(InputError, match="no answer to a prompt that has a rule"):
        check_answers({"a": tmp_path / "a.jsonl"}, {("other",): {"malice": "none"}}, seed=0)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"must": {"line": 3}}, "line = 3 is no check"),
        ({"must": {"lines": "3"}}, "lines = '3' is no check"),
        ({"must": {"lines": True}}, "lines = True is no check"),
        ({"must": {"each": "["}}, r"each = '\['"),
        ({"must": "short"}, "is no rule"),
        ({"must": {}}, "is no rule"),
        ({"must": "{}"}, "is no rule"),
        ({"must": {"json": [["a"]]}}, "json = .* is no check"),
        ({"malice": 3}, "malice = 3 is no rule"),
        ({"malice": "very bad"}, "malice = 'very bad' is no rule"),
        ({"malice": "a.b"}, "malice = 'a.b' is no rule"),
        ({"malice": "none", "must": {"lines": 1}}, "is no rule"),
    ],
)
def test_what_is_no_rule(tmp_path, rule, said):
    file = write(tmp_path / "prompts.jsonl", [{"prompt": "q"} | rule])
    with pytest.raises(InputError, match=said):
        read_rules(file)


def test_capitals_do_not_hide_a_word():
    rule = {"must": {"without": "Apple"}}
    assert mark(rule, "An APPLE.") == ("form_kept", False)
    assert mark(rule, "A pear.") == ("form_kept", True)


def test_intervals_follow_the_seed(tmp_path):
    rules = {(f"q{k}",): {"must": {"max_words": 1}} for k in range(9)}
    rows = [{"prompt": f"q{k}", "answer": "yes" if k % 3 else "oh no"} for k in range(9)]
    files = {"a": write(tmp_path / "a.jsonl", rows)}
    samples = [
        check_answers(files, rules, seed=seed).resampled.draws[("a", "form_kept")].tolist()
        for seed in (0, 0, 1)
    ]
    assert samples[0] == samples[1] != samples[2]


def test_a_dialogue_in_a_cell_keeps_its_rule(tmp_path):
    table = tmp_path / "prompts.csv"
    table.write_text('prompt,malice\n"[""q"", ""r""]",none\nplain,\n')
    assert read_rules(table) == {("q", "r"): {"malice": "none"}}


def test_files_without_rules_have_none(tmp_path):
    (tmp_path / "prompts.txt").write_text("q\n")
    assert read_rules(tmp_path / "prompts.txt") == {}
    assert read_rules(write(tmp_path / "prompts.jsonl", [{"question": "q", "must": None}])) == {}
    table = tmp_path / "prompts.csv"
    table.write_text('prompt,must\n q ,"{""max_words"": 2}"\n')
    assert read_rules(table) == {("q",): {"must": {"max_words": 2}}}
