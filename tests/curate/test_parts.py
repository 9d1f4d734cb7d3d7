"""Rules of quality, leaks, repeats, vectors, topics and score files, each by itself."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from litee.curate.duplicates import near_groups
from litee.curate.leaks import Leaks, read_prompts
from litee.curate.quality import RULES, judge_by_rules
from litee.curate.scores import read_scores
from litee.curate.topics import cluster, name_clusters, topic_count
from litee.curate.vectors import tfidf_vectors, unit
from litee.errors import InputError
from litee.records import Demonstration, Message

GOOD = "Salt slows yeast down, so add it after the dough has rested for half an hour."


def faults(answer: str, prompt: str = "How do I bake bread with a slow crust?") -> dict[str, float]:
    both = (Message("user", prompt), Message("assistant", answer))
    return dict(judge_by_rules(Demonstration("1", both)).faults)


@pytest.mark.parametrize(
    ("rule", "answer"),
    [
        ("speaks as an AI", f"As an AI language model, {GOOD}"),
        ("bare refusal", "I'm sorry, but I can't help with that."),
        ("ends in the middle", GOOD.rstrip(".") + " and then you"),
        ("repeats itself", "Knead the dough. " * 12),
        ("placeholder", f"Dear [Your Name], {GOOD}"),
        ("capitals", GOOD.upper()),
        ("garbled", f"{GOOD} â€™"),
        ("garbled", "=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-= a"),
        ("repeats the prompt", "How do I bake bread with a slow crust?"),
        ("off the topic", "Planets move around suns on long paths of many shapes. " + "Far " * 60),
        ("one long paragraph", " ".join(f"step{k}" for k in range(320)) + "."),
    ],
)
def test_each_rule_finds_its_fault(rule, answer):
    long_prompt = "Please explain dough, flour, ovens, yeast, crust and kneading slowly?"
    prompt = long_prompt if rule == "off the topic" else "How do I bake bread with a slow crust?"
    assert rule in faults(answer, prompt)


def test_every_rule_is_tested_above_and_a_good_answer_has_no_fault():
    assert len(RULES) == 10
    assert faults(GOOD) == {}
    assert faults("1. Mix.\n2. Knead it all\n3. Bake") == {}
    assert faults("Flour and water") == {}


@given(st.text(min_size=1, max_size=400))
def test_quality_is_between_0_and_1(text):
    if text.strip():
        both = (Message("user", "q"), Message("assistant", text))
        assert 0 <= judge_by_rules(Demonstration("1", both)).value <= 1


def test_a_leak_is_a_share_of_the_runs_of_an_evaluation_prompt():
    """The prompt has 9 words, so 6 runs of 4; "f g h i" and the runs before it share 3 of 6."""
    leaks = Leaks(["a b c d e f g h i"], n=4, share=0.5)
    assert leaks.find("x d e f g h i y", "") == (0.5, 0)
    assert leaks.find("x e f g h i y", "") is None
    assert leaks.find("nothing", "So: A  b, c d E f!") == (0.5, 0)


def test_short_evaluation_prompts_leak_through_prompts_only():
    leaks = Leaks(["tell me a joke", "hi there"], n=8, share=0.5)
    assert leaks.find("Please tell me a joke now", "") == (1.0, 0)
    assert leaks.find("What do people say?", "They say: tell me a joke.") is None
    assert leaks.find("hi there", "") is None


def test_evaluation_prompts_come_from_votes_chats_and_lines(tmp_path):
    votes = tmp_path / "votes.jsonl"
    votes.write_text(
        '{"prompt": ["one", "two"]}\n{"messages": [{"role": "user", "content": "three"}]}\n'
    )
    table = tmp_path / "arena.csv"
    table.write_text('id,prompt\n1,"[""four"", ""five""]"\n2,six\n')
    lines = tmp_path / "lines.txt"
    lines.write_text("seven\n\none\n")
    found = read_prompts([votes, table, lines])
    assert found == ("one", "two", "three", "four", "five", "six", "seven")
    empty = tmp_path / "empty.jsonl"
    empty.write_text('{"other": 1}\n')
    with pytest.raises(InputError, match="no evaluation prompts"):
        read_prompts([empty])


def test_near_groups_join_repeats_and_leave_short_texts_alone():
    long = "Please tell me in a few words how the tides of the sea come and go each day"
    texts = [long, long.upper(), long + "!", "Yes.", "Yes.", "Quite another question of mine"]
    assert near_groups(texts, near=0.8, seed=0) == [0, 0, 0, 3, 3, 5]
    assert near_groups(texts, near=0.8, seed=0, shortest=10) == [0, 0, 0, 3, 4, 5]


TEXTS = [
    f"{a} {b} {c}"
    for a in ("bread flour oven", "stars orbit comet")
    for b in ("yeast", "moon", "salt", "lens")
    for c in ("crust dough", "dust galaxy", "anchor", "sail rope tide")
]


def test_vectors_keep_the_cosines_of_plain_tfidf():
    """With as many dimensions as texts the SVD loses (almost) nothing."""
    texts = [f"{text} {'bread orbit ' * (k % 5)}" for k, text in enumerate(TEXTS)]
    found = tfidf_vectors(texts, dimensions=len(texts), seed=0)
    plain = TfidfVectorizer(stop_words="english", sublinear_tf=True).fit_transform(texts)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)
    assert found @ found.T == pytest.approx((plain @ plain.T).toarray(), abs=0.02)


@pytest.mark.parametrize("texts", [["one"], ["", ""], ["the", "of a"], ["same", "same", "same"]])
def test_vectors_of_few_or_empty_texts_have_length_one(texts):
    found = tfidf_vectors(texts, dimensions=64, seed=0)
    assert found.shape[0] == len(texts)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)
    assert np.isfinite(found).all()


def test_clusters_find_topics_and_are_named_by_their_words():
    texts = [f"{w} {k}" for k in range(30) for w in ("bread flour oven", "comet orbit galaxy")]
    labels = cluster(tfidf_vectors(texts, dimensions=8, seed=0), 2, 0)
    assert len(set(labels[::2])) == len(set(labels[1::2])) == 1
    assert labels[0] != labels[1]
    names = name_clusters(texts, labels, 2, 0)
    assert set(names[labels[0]].split()[1:]) == {"bread", "flour", "oven"}
    assert name_clusters(["1 2"] * 3, np.zeros(3, dtype=np.int64), 1, 0) == ["00"]
    assert topic_count(2, 0) == 1


def test_score_files_are_joined_by_id(tmp_path):
    one, two = tmp_path / "one.csv", tmp_path / "two.jsonl"
    one.write_text("id,reward,note\na,1.5,good\nb,,\n")
    two.write_text('{"id": "a", "grade": 6, "reward": 1.5, "ok": true}\n')
    assert read_scores([one, two]) == {"a": {"reward": 1.5, "grade": 6.0}, "b": {}}
    two.write_text('{"id": "a", "reward": 2}\n')
    with pytest.raises(InputError, match=r"reward of id 'a' was 1.5, here 2"):
        read_scores([one, two])
    two.write_text('{"reward": 2}\n')
    with pytest.raises(InputError, match="no column 'id'"):
        read_scores([two])


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(1, 5))
def test_unit_vectors_have_length_one(rows, width):
    vectors = np.random.default_rng(rows).normal(size=(rows, width))
    vectors[0] = 0
    assert np.linalg.norm(unit(vectors), axis=1) == pytest.approx(1, abs=1e-5)
