"""Curating from files to files: what is refused and why, explanations, quotas, resuming."""

import json
import math
from pathlib import Path

import pytest
from made_up_demonstrations import made_up, read_rows, row, write_rows

from litee.curate import curating
from litee.curate.curating import CHOSEN, FULL, NOT_CHOSEN, Sources, curate
from litee.curate.screening import LEAK, LONG, NO_QUALITY, SAME_ANSWER, SAME_PROMPT, SHORT, WORST
from litee.curate.settings import CurateSettings
from litee.curate.vectors import tfidf_vectors
from litee.errors import ConfigError, InputError

DATA = Path(__file__).parents[2] / "../shared/data"


def run(path, out, encode=None, **values):
    sources = {k: values.pop(k) for k in ("against", "scores", "format") if k in values}
    settings = CurateSettings(**{"n": 6, "clients": 50, **values})
    return curate(Sources((path,), **sources), out, settings, encode=encode)


def reasons(found):
    return {r["id"]: r["reason"] for r in read_rows(found.explanations)}


def test_each_refusal_has_its_reason(demos, tmp_path):
    prompt = "Why do loaves of old bread taste of nothing at all after some days?"
    answer = (
        "Old bread loses its taste since starch turns back into crystals over some days, "
        "and no tin, bag or cloth can keep it from doing so for very long."
    )
    rows = [
        *made_up(20),
        row("short", "What is a keel?", "A part."),
        row("long", "What is a mast?", "word " * 5000),
        row("asked", "Who first looked at the moon through a lens of glass and saw hills?", answer),
        row("best", prompt, "The starch in it grows hard, and what was sweet is eaten by air."),
        row("worse", prompt + " ", "As an AI language model, I say: starch gets hard with time."),
        row("copy", "Tell me about loaves that are not new any more, please.", answer + " "),
        row("first", "Quite another question about stale things?", answer),
    ]
    evaluation = tmp_path / "evaluation.txt"
    evaluation.write_text("Who first looked at the moon through a lens of glass and saw hills?\n")
    found = run(demos(rows), tmp_path / "out.jsonl", against=(evaluation,))
    why = reasons(found)
    assert why["short"] == SHORT
    assert why["long"] == LONG
    assert why["asked"] == LEAK
    assert why["worse"] == SAME_PROMPT
    assert why["first"] != SAME_ANSWER == why["copy"] or why["first"] == SAME_ANSWER != why["copy"]
    details = {r["id"]: r["detail"] for r in read_rows(found.explanations)}
    assert details["worse"] == "of best"
    assert details["asked"] == "holds 100% of the word runs of evaluation prompt 1"
    assert found.read == 27
    assert found.usable == found.read - sum(found.refused.values())


def test_chosen_and_explained_agree(demos, tmp_path):
    found = run(demos(made_up(60)), tmp_path / "out.jsonl")
    chosen = read_rows(found.out)
    lines = {r["id"]: r for r in read_rows(found.explanations)}
    assert len(lines) == 60
    assert [lines[c["id"]]["rank"] for c in chosen] == [1, 2, 3, 4, 5, 6]
    assert {k for k, r in lines.items() if r["kept"]} == {c["id"] for c in chosen}
    assert {r["reason"] for r in lines.values()} == {CHOSEN, NOT_CHOSEN}
    for line in lines.values():
        assert line["nearest_kept"] in {c["id"] for c in chosen} - {line["id"]}
        assert -1 <= line["similarity"] <= 1
    assert not (tmp_path / "out.jsonl.work").exists()
    summary = json.loads(found.summary.read_text())
    assert summary["comparison"]["chosen"]["topics"] == found.profiles["chosen"].topics
    assert summary["receipt"]["inputs"]


def test_the_choice_covers_more_than_chance_and_repeats_less(demos, tmp_path):
    rows = made_up(40)
    question = "Is the dough for the bread of the harbour made of flour and salt"
    crowd = [row(f"same{k}", f"{question}{'!' * (k + 1)}", f"Yes, since {k}.") for k in range(20)]
    path = demos([*rows, *crowd])
    plain = {"n": 10, "quality_weight": 0.0, "min_chars": 5}
    found = run(path, tmp_path / "out.jsonl", **plain)
    chosen, random = found.profiles["chosen"], found.profiles["random"]
    assert chosen.repeats == 0 < random.repeats
    assert chosen.coverage > random.coverage
    assert found.profiles["longest"].answer_chars > chosen.answer_chars
    apart = run(path, tmp_path / "out.jsonl", strategy="kcenter", **plain).profiles["chosen"]
    assert apart.distance > random.distance


def test_the_profile_of_a_known_set(demos, tmp_path):
    """Two topics with 3 and 1 of 4: exp(entropy) = 4 / 27^(1/4) = 1.7548."""
    import numpy as np

    from litee.curate.comparison import Measures, profile
    from litee.curate.duplicates import Repeats
    from litee.curate.pool import Pool

    pool = Pool(tmp_path / "none")
    pool.answer_chars.extend([10, 20, 30, 60])
    groups = np.array([0, 0, 2, 3])
    measures = Measures(
        pool,
        Repeats(groups, np.arange(4), np.full(4, -1)),
        np.array([True, False, False, False]),
        np.array([1.0, 0.5, np.nan, 0.0]),
        np.eye(4, dtype=np.float32),
        np.array([1, 1, 1, 0]),
    )
    found = profile(measures, range(4), np.eye(4, dtype=np.float32))
    assert (found.repeats, found.leaks, found.topics, found.answer_chars) == (1, 1, 2, 30)
    assert found.effective_topics == pytest.approx(4 / 27**0.25)
    assert (found.quality, found.distance, found.coverage) == (0.5, 1.0, 1.0)


def test_quotas_by_source_and_topic_hold_and_are_explained(demos, tmp_path):
    path = demos(made_up(60))
    found = run(path, tmp_path / "o.jsonl", n=12, quotas=("source:bread=2", "source:stars=7-"))
    assert found.sources["bread"][2] == 2
    assert found.sources["stars"][2] >= 7
    assert FULL in set(reasons(found).values())
    found = run(path, tmp_path / "o.jsonl", n=12, max_per_source=4, max_per_topic=4, topics=5)
    assert {c for *_, c in found.sources.values()} == {4}
    assert max(c for *_, c in found.topics.values()) <= 4


def test_scores_come_from_records_and_files(demos, tmp_path):
    rows = made_up(20)
    for k, r in enumerate(rows):
        r["scores"] = {"grade": k % 7}
        r["score"] = k
    path = demos(rows)
    table = tmp_path / "scores.csv"
    table.write_text("id,reward\n" + "".join(f"{r['id']},{-k}\n" for k, r in enumerate(rows[:15])))
    best = run(path, tmp_path / "o.jsonl", n=3, strategy="quality", quality=("score",))
    assert [r["id"] for r in read_rows(best.out)] == [r["id"] for r in rows[:16:-1]]
    best = run(
        path, tmp_path / "o.jsonl", n=3, strategy="quality", quality=("reward",), scores=(table,)
    )
    assert [r["id"] for r in read_rows(best.out)] == [r["id"] for r in rows[:3]]
    assert best.refused == {NO_QUALITY: 5}
    both = run(path, tmp_path / "o.jsonl", quality=("rules", "grade"), drop_worst=0.25)
    assert both.refused[WORST] == 3  # grade 0; of grade 1 only two would go, so all stay
    with pytest.raises(ConfigError, match="no demonstration has a quality 'reward'"):
        run(path, tmp_path / "o.jsonl", quality=("reward",))


@pytest.mark.parametrize("strategy", ["facility", "kcenter", "clusters", "quality"])
def test_the_same_seed_chooses_the_same(demos, tmp_path, strategy):
    path = demos(made_up(60))
    first = run(path, tmp_path / "a.jsonl", strategy=strategy).out.read_bytes()
    assert run(path, tmp_path / "b.jsonl", strategy=strategy).out.read_bytes() == first


def test_too_few_and_none_are_refused_with_counts(demos, tmp_path):
    rows = [*made_up(5), row("short", "What is a keel?", "A part.")]
    with pytest.raises(InputError, match=r"5 of 6 .* usable, n = 6 \(1 answer too short\)"):
        run(demos(rows), tmp_path / "o.jsonl")
    with pytest.raises(InputError, match="no usable demonstration"):
        run(demos([{"messages": []}]), tmp_path / "o.jsonl", format="messages")
    with pytest.raises(ConfigError, match="by source leave room for 3"):
        run(demos(made_up(20)), tmp_path / "o.jsonl", max_per_source=1)
    with pytest.raises(ConfigError, match="have no topic"):
        run(demos(made_up(20)), tmp_path / "o.jsonl", topic_by="given")
    assert not (tmp_path / "o.jsonl").exists()


def test_given_topics_are_used_when_all_have_one(demos, tmp_path):
    rows = [{**r, "topic": r["source"]} for r in made_up(30)]
    found = run(demos(rows), tmp_path / "o.jsonl", quotas=("topic:boats=1",))
    assert set(found.topics) == {"bread", "stars", "boats"}
    assert found.topics["boats"] == (10, 10, 1)


def test_another_encoder_is_asked_in_chunks_and_not_twice(demos, tmp_path, monkeypatch):
    monkeypatch.setattr(curating, "_CHUNK", 16)
    path = demos(made_up(50))
    asked: list[int] = []

    def encode(texts):
        asked.append(len(texts))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return tfidf_vectors(texts, dimensions=1, seed=0)

    with pytest.raises(KeyboardInterrupt):
        run(path, tmp_path / "o.jsonl", encode, embedding="mine")
    whole = run(path, tmp_path / "o.jsonl", encode, embedding="mine")
    assert asked == [16, 16, 16, 16, 2]
    assert len(read_rows(whole.out)) == 6
    with pytest.raises(ConfigError, match="needs its encoder"):
        run(path, tmp_path / "o.jsonl", embedding="mine")


def test_repeats_are_kept_through_an_interruption_and_renewed_by_new_settings(
    demos, tmp_path, monkeypatch
):
    path = demos(made_up(40))
    plain = run(path, tmp_path / "plain.jsonl").out.read_bytes()
    calls: list[float] = []
    find = curating.find_repeats

    def counted(*arguments, **more):
        calls.append(more["near"])
        return find(*arguments, **more)

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(curating, "find_repeats", counted)
    with monkeypatch.context() as patch:
        patch.setattr(curating, "_vectors", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(path, tmp_path / "o.jsonl")
    assert (tmp_path / "o.jsonl.work").is_dir()
    assert run(path, tmp_path / "o.jsonl").out.read_bytes() == plain
    assert calls == [0.8]
    with monkeypatch.context() as patch:
        patch.setattr(curating, "_vectors", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(path, tmp_path / "o.jsonl")
    run(path, tmp_path / "o.jsonl", near=0.9)
    assert calls == [0.8, 0.8, 0.9]
    with pytest.raises(ConfigError):
        run(path, tmp_path / "o.jsonl", quotas=("source:bread=40",))
    run(path, tmp_path / "o.jsonl", quotas=("source:bread=4",))
    assert calls == [0.8, 0.8, 0.9, 0.8]


def test_slow_steps_belong_to_files_in_their_order_and_roles(tmp_path):
    """Rows are numbered over the files, and what leaks depends on which of them are held out."""
    a, b = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    inputs = {str(a): "1", str(b): "2"}
    keys = []
    for read, held in (([a, b], []), ([b, a], []), ([a], [b]), ([b], [a])):
        sources = curating.Sources(demonstrations=tuple(read), against=tuple(held))
        out = tmp_path / "o.jsonl"
        folder = curating._work_folder(out, sources, CurateSettings(n=1), inputs)
        keys.append((folder / "key").read_text())
    assert len(set(keys)) == 4


def test_the_command_prints_tables_and_json(demos, tmp_path, capsys):
    from typer.testing import CliRunner

    from litee.cli import app

    path, out = demos(made_up(30)), tmp_path / "out.jsonl"
    arguments = ["curate", str(path), "--n", "5", "--out", str(out)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    for words in ("usable", "effective topics", "bread", "every choice explained"):
        assert words in done.stdout
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert json.loads(done.stdout)["chosen"] == 5
    assert not math.isnan(json.loads(done.stdout)["comparison"]["random"]["coverage"])


def test_the_commands_go_from_dump_to_choice(tmp_path):
    from typer.testing import CliRunner

    from litee.cli import app

    rows = [
        {"conversations": [{"from": "human", "value": p}, {"from": "gpt", "value": a}]}
        for p, a in (
            (r["messages"][0]["content"], r["messages"][1]["content"]) for r in made_up(20)
        )
    ]
    dump, demos, out = tmp_path / "d.jsonl", tmp_path / "demos.jsonl", tmp_path / "o.jsonl"
    write_rows(dump, [*rows, {"conversations": []}])
    done = CliRunner().invoke(app, ["data", "demonstrations", str(dump), "--out", str(demos)])
    assert done.exit_code == 0, done.output
    assert "removed: no user turn" in done.stdout
    assert (
        CliRunner().invoke(app, ["curate", str(demos), "-n", "4", "--out", str(out)]).exit_code == 0
    )
    assert len(read_rows(out)) == 4


@pytest.mark.real_data
def test_real_demonstrations_without_the_prompts_of_the_held_out_votes(tmp_path):
    path = DATA / "demonstrations" / "self_instruct_seed_tasks.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    votes = DATA / "votes" / "mt_bench_human.jsonl.gz"
    found = run(path, tmp_path / "o.jsonl", n=50, clients=2000, against=(votes,))
    assert found.read == 175
    assert found.profiles["chosen"].leaks == 0
    assert found.profiles["chosen"].distance > found.profiles["random"].distance
