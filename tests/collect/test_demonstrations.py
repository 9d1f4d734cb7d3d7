"""Demonstrations out of every format: what becomes of a record, what is removed and why."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from litee.collect.cells import DUPLICATE, JOINED, NO_USER_TURN
from litee.collect.demonstration_settings import DemonstrationSettings
from litee.collect.demonstrations import (
    READERS,
    SAME_ID,
    detect_format,
    read_demonstrations,
    to_json,
    write_demonstrations,
)
from litee.collect.instructions import BLANK_TURN, CUT_USER, NO_ANSWER, OTHER_SHAPE
from litee.collect.reading import DAMAGED, NOT_DRAWN, Reading
from litee.collect.zst import DamagedError
from litee.errors import ConfigError, InputError
from litee.records import Demonstration, Message

DATA = Path(__file__).parents[2] / "../shared/data"
LONG = "Stir the pot and taste it. " * 50


def read(*paths, format="auto", **values):
    reading = Reading(DemonstrationSettings(**values))
    return list(read_demonstrations([Path(p) for p in paths], reading, format)), reading


def texts(item: Demonstration) -> list[tuple[str, str]]:
    return [(m.role, m.text) for m in item.messages]


def chat(*turns: str, system: str = "") -> list[dict[str, str]]:
    roles = ("user", "assistant")
    found = [{"role": roles[k % 2], "content": t} for k, t in enumerate(turns)]
    return [{"role": "system", "content": system}, *found] if system else found


def test_messages_keep_system_and_turns(write):
    path = write([{"id": 7, "messages": chat("q", "x", "r", "y", system="s"), "source": "mine"}])
    (item,), reading = read(path)
    assert texts(item) == [
        ("system", "s"),
        ("user", "q"),
        ("assistant", "x"),
        ("user", "r"),
        ("assistant", "y"),
    ]
    assert (item.id, item.source, item.prompt, item.answer) == ("7", "mine", "q", "x\n\ny")
    assert reading.read == 1


def test_sharegpt_roles_joins_and_cut_ends(write):
    turns = [("human", "q"), ("human", "more"), ("gpt", "x"), ("human", "bye")]
    rows = [{"id": "a", "conversations": [{"from": r, "value": t} for r, t in turns]}]
    (item,), reading = read(write(rows))
    assert texts(item) == [("user", "q\n\nmore"), ("assistant", "x")]
    assert reading.noticed.counts == {JOINED: 1, CUT_USER: 1}


def test_unusable_conversations_are_counted(write):
    rows = [
        {"messages": chat("q", "x")},
        {"messages": chat("q", "x")},
        {"messages": [{"role": "assistant", "content": "x"}]},
        {"messages": chat("q")},
        {"messages": chat("q", "  ")},
        {"messages": 3},
        {"id": "mine", "messages": chat("r", "x")},
        {"id": "mine", "messages": chat("s", "x")},
        {"id": "votes:1", "messages": chat("t", "x")},
    ]
    found, reading = read(write(rows))
    assert [d.id for d in found] == ["votes:1", "mine", "votes:1+2"]
    assert reading.removed.counts == {
        DUPLICATE: 1,
        NO_USER_TURN: 1,
        NO_ANSWER: 1,
        BLANK_TURN: 1,
        SAME_ID: 1,
    }
    assert reading.lost.counts == {OTHER_SHAPE: 1}
    assert reading.read == len(found) + reading.removed.frozen().total + 1


@pytest.mark.parametrize("ending", [".json", ".json.gz"])
def test_alpaca_joins_instruction_and_input(write, ending):
    rows = [
        {"instruction": "Add.", "input": "1, 2", "output": "3"},
        {"instruction": "Sing.", "input": "<noinput>", "output": "La."},
        {"instruction": "Fail.", "input": "", "output": None},
    ]
    found, reading = read(write(json.dumps(rows), f"alpaca{ending}"))
    assert [d.prompt for d in found] == ["Add.\n\n1, 2", "Sing."]
    assert reading.removed.counts == {NO_ANSWER: 1}


def oasst(**changes):
    def reply(text, rank, *replies, role="assistant"):
        return {"role": role, "text": text, "rank": rank, "replies": list(replies)}

    root = {
        "message_id": "m1",
        "role": "prompter",
        "text": "q",
        "lang": "en",
        "replies": [
            reply("second", 1),
            reply(
                "first",
                0,
                reply("thanks", None, role="prompter"),
                reply("why?", None, reply("so", 0), role="prompter"),
            ),
        ],
    }
    root.update(changes)
    return {"message_tree_id": "m1", "prompt": root}


def test_oasst_takes_the_best_ranked_path(write):
    rows = [oasst(), oasst(lang="de"), oasst(deleted=True), oasst(replies=[])]
    (item,), reading = read(write(rows))
    assert [t for _, t in texts(item)] == ["q", "first", "why?", "so"]
    assert sum(reading.removed.counts.values()) == 3


def test_flat_oasst_messages_give_the_same_path(write):
    flat = []

    def flatten(node, parent):
        name = f"{parent or ''}{len(flat)}"
        flat.append({**node, "message_id": name, "parent_id": parent, "replies": None})
        for reply in node["replies"]:
            flatten(reply, name)

    flatten(oasst()["prompt"], None)
    (item,), _ = read(write(flat))
    assert [t for _, t in texts(item)] == ["q", "first", "why?", "so"]


def task(**changes):
    return {
        "Definition": ["Shorten the text."],
        "Categories": ["Summarization"],
        "Output_language": ["English"],
        "Instances": [{"input": f"text {k}", "output": [f"t{k}"]} for k in range(20)],
        "Instance License": ["MIT"],
        **changes,
    }


def test_natural_instructions_give_one_random_example_per_task(tmp_path):
    (tmp_path / "task1_a.json").write_text(json.dumps(task()))
    (tmp_path / "task2_b.json").write_text(
        json.dumps(task(Categories=["Parsing"], Definition="Parse."))
    )
    (tmp_path / "task3_c.json").write_text(json.dumps(task(Output_language=["Hindi"])))
    (tmp_path / "task4_d.json").write_text('{"Definition": ')
    (item,), reading = read(tmp_path)
    assert item.prompt.startswith("Shorten the text.\n\ntext ")
    assert item.answer == "t" + item.prompt.split()[-1]
    assert (item.topic, item.license) == ("Summarization", "MIT")
    assert reading.lost.counts == {"broken task file": 1}
    assert reading.read == 60 == 1 + reading.removed.frozen().total
    assert {read(tmp_path, seed=s)[0][0].answer for s in range(9)} != {item.answer}
    assert len(read(tmp_path, per_task=0, categories=())[0]) == 40


def reddit(tmp_path, submissions, comments):
    from test_zst import zstd

    paths = []
    for name, rows in (("submissions", submissions), ("comments", comments)):
        path = tmp_path / f"Sub_{name}.zst"
        path.write_bytes(zstd.compress("".join(json.dumps(r) + "\n" for r in rows).encode()))
        paths.append(path)
    return paths


def submission(name, title="[WP] A clock stops &amp; nobody sees.", **more):
    cells = {"id": name, "title": title, "selftext": "", "subreddit": "WritingPrompts", "score": 9}
    return {**cells, **more}


def comment(link, body=LONG, score=20, **more):
    return {"link_id": f"t3_{link}", "parent_id": f"t3_{link}", "body": body, "score": score} | more


def test_reddit_joins_a_submission_with_its_best_comment(tmp_path):
    submissions = [
        submission("a"),
        submission("b", over_18=True),
        submission("c", "[OT] Who are you?"),
        submission("d", "[removed]"),
        submission("e", score=1),
    ]
    comments = [
        comment("a", score=11),
        comment("a", LONG + "The end.", 30),
        comment("a", "[deleted]"),
        comment("a", parent_id="t1_x"),
        comment("a", score=3),
        comment("a", "Short."),
        comment("b"),
    ]
    paths = reddit(tmp_path, submissions, comments)
    (item,), reading = read(*reversed(paths))
    assert item.prompt == "A clock stops & nobody sees."
    assert item.answer.endswith("The end.")
    assert (item.source, item.score) == ("reddit/WritingPrompts", 30.0)
    assert reading.removed.counts == {
        "marked as for adults only": 1,
        "tagged as something else than a prompt": 1,
        "deleted or removed": 2,
        "not the submission's best comment": 1,
        "comment on a comment": 1,
        "answer's score too low": 1,
        "answer too short": 1,
        "submission without a usable comment": 1,
    }
    with pytest.raises(InputError, match="no dump of comments"):
        read(paths[0], format="reddit")


def test_reddit_prompts_are_the_best_scored_titles(tmp_path):
    from litee.collect.reddit_dump import read_prompts

    rows = [
        submission(c, f"What would {c} change about the sea?", score=k) for k, c in enumerate("abc")
    ]
    paths = reddit(tmp_path, [*rows, submission("d", "Tell this.")], [])
    reading = Reading(DemonstrationSettings(n=2))
    found = list(read_prompts(paths[:1], reading))
    assert [p for _, _, p in found] == [f"What would {c} change about the sea?" for c in "cb"]


def test_wikihow_steps_become_one_article(write):
    step = "Put the pan on the stove and wait until it is hot. " * 15
    text = (
        "title,category,overview,sectionLabel,headline,text\n"
        f'How to Cook1,Food,This article tells how.,Start,Heat,"{step}"\n'
        f'How to Cook1,Food,This article tells how.,Start,Stir,"{step}"\n'
        f'How to Cook1,Food,This article tells how.,End,Eat,"{step}"\n'
        "How to Rest,Home,,Start,Lie,Down.\n"
        ",Home,,Start,Lie,Down.\n"
    )
    (item,), reading = read(write(text, "wikihow.csv"))
    assert item.prompt == "How to Cook"
    assert item.answer.startswith(
        "The following answer tells how.\n\n## Start\n\n1. Heat Put the pan"
    )
    assert "\n\n2. Stir" in item.answer
    assert "## End\n\n1. Eat" in item.answer
    assert item.topic == "Food"
    assert reading.removed.counts == {"row without a title": 1, "answer too short": 1}


def test_wikihow_draws_a_category_first(write):
    body = "Do it with care and take your time. " * 40
    rows = ["title,text,category"]
    rows += [f'How to {k},"{body}{k}",{"Rare" if k % 20 == 0 else "Often"}' for k in range(400)]
    found, reading = read(write("\n".join(rows), "wikihow.csv"), n=30)
    assert 9 <= sum(d.topic == "Rare" for d in found) <= 20
    assert reading.removed.counts == {NOT_DRAWN: 370}


def grounded(folder: Path, *turns: tuple[object, object]) -> Path:
    folder.mkdir()
    knowledge = {
        "hotel": {
            "7": {
                "name": "Inn",
                "reviews": {"0": {"sentences": {"2": "Quiet rooms."}}},
                "faqs": {"1": {"question": "Parking?", "answer": "Yes."}},
                "docs": {"1": {"title": "Pets?", "body": "No."}},
            }
        }
    }
    (folder / "knowledge.json").write_text(json.dumps(knowledge))
    (folder / "val_logs.json").write_text(json.dumps([log for log, _ in turns]))
    (folder / "val_labels.json").write_text(json.dumps([label for _, label in turns]))
    return folder


def piece(number, **more):
    return {"domain": "hotel", "entity_id": 7, "doc_id": number, **more}


def test_grounded_turns_bring_their_documents(tmp_path):
    log = [{"speaker": "U", "text": "Is it quiet?"}]
    review, faq = piece(0, doc_type="review", sent_id=2), piece(1, doc_type="faq")
    good = {"target": True, "response": "It is.", "knowledge": [review, faq, faq, piece(1)]}
    folder = grounded(
        tmp_path / "talks",
        (log, good),
        (log, {"target": False}),
        (log, {**good, "response": ""}),
        (log, {**good, "knowledge": [piece(9)]}),
    )
    (item,), reading = read(folder)
    assert texts(item) == [
        (
            "system",
            "Answer with the help of these documents.\n"
            "- Inn: Quiet rooms.\n- Inn: Parking? Yes.\n- Inn: Pets? No.",
        ),
        ("user", "Is it quiet?"),
        ("assistant", "It is."),
    ]
    assert (item.source, item.topic) == ("talks", "hotel")
    assert list(reading.removed.counts.values()) == [1, 1, 1]
    (folder / "val_labels.json").write_text("[]")
    with pytest.raises(InputError, match="two lists of one length"):
        read(folder)


def test_what_is_written_is_read_back(tmp_path):
    messages = (Message("system", "s"), Message("user", "q\u2028ü"), Message("assistant", "x"))
    items = [
        Demonstration("1", messages, "src", "MIT", "food", 3.0, {"reward": -1.5}),
        Demonstration("2", messages[1:], "src"),
    ]
    path = tmp_path / "demos.jsonl"
    assert write_demonstrations(path, items) == 2
    assert read(path)[0] == items
    assert "score" not in to_json(items[1])


@pytest.mark.parametrize(
    ("messages", "scores"),
    [
        ((), {}),
        ((Message("user", "q"),), {}),
        ((Message("assistant", "x"), Message("user", "q")), {}),
        ((Message("user", "q"), Message("assistant", " ")), {}),
        ((Message("user", "q"), Message("assistant", "x")), {"r": float("nan")}),
    ],
)
def test_a_demonstration_must_make_sense(messages, scores):
    with pytest.raises(ValueError, match=r"roles|blank|finite"):
        Demonstration("1", messages, scores=scores)


def test_unknown_formats_and_empty_results_are_refused(write, tmp_path):
    with pytest.raises(ConfigError, match="unknown"):
        read(write([{"messages": []}]), format="chatml")
    with pytest.raises(InputError, match=r"no known format .*\(a, b\)"):
        read(write([{"a": 1, "b": 2}]))
    with pytest.raises(InputError, match="no readable record"):
        read(write(b"\x00\x01 nothing", "x.jsonl"))
    with pytest.raises(InputError, match=r"among 1 candidates: 1 no answer"):
        read(write([{"messages": chat("q")}]))
    with pytest.raises(InputError, match="0 files named"):
        read(tmp_path, format="grounded")


def test_a_truncated_dump_needs_salvage(tmp_path):
    rows = "".join(
        json.dumps({"messages": chat(f"q{k * 7919}", f"x{k}")}) + "\n" for k in range(5000)
    )
    path = tmp_path / "chats.jsonl.gz"
    path.write_bytes(gzip.compress(rows.encode())[:-3000])
    with pytest.raises(DamagedError, match=r"; [\d,]+ candidates were read before"):
        read(path)
    found, reading = read(path, salvage=True)
    assert 1000 < len(found) < 5000
    assert reading.lost.counts[DAMAGED] == 1


@pytest.mark.parametrize("format", ["messages", "sharegpt", "alpaca", "oasst", "seed-tasks"])
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damaged_files_never_end_in_another_error(tmp_path_factory, format, data):
    rows = {
        "messages": {"messages": chat("q", "x")},
        "sharegpt": {"conversations": [{"from": "human", "value": "q"}]},
        "alpaca": {"instruction": "q", "output": "x"},
        "oasst": oasst(),
        "seed-tasks": {"instruction": "q", "instances": [{"input": "", "output": "x"}]},
    }
    content = bytearray((json.dumps(rows[format]) + "\n").encode() * 3)
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=6)):
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.jsonl"
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    try:
        found, reading = read(path, format=format)
    except InputError as error:
        assert error.fix
    else:
        assert 0 < len(found) <= reading.read


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
CELLS = (  # noqa: SIM905
    "id messages conversations role from content value instruction input output instances prompt "
    "message_id message_tree_id parent_id text replies rank title selftext body link_id score "
    "Definition Categories Instances source topic scores"
).split()


@pytest.mark.parametrize("format", sorted({*READERS} - {"stack-exchange", "grounded", "wikihow"}))
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=st.lists(st.dictionaries(st.sampled_from(CELLS), JSON, max_size=5), max_size=4))
def test_cells_of_any_type_never_end_in_another_error(tmp_path_factory, format, rows):
    path = tmp_path_factory.getbasetemp() / "odd.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    try:
        read(path, format=format)
    except InputError as error:
        assert error.fix


@pytest.mark.real_data
def test_the_seed_tasks_and_the_travel_answers():
    folder = DATA / "demonstrations"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    found, reading = read(folder / "self_instruct_seed_tasks.jsonl.gz")
    assert len(found) == 175
    assert sum("\n\n" in d.prompt for d in found) >= 125
    found, reading = read(DATA / "travel" / "dstc11")
    assert len(found) == 2129
    assert reading.read == 4173
    assert detect_format(DATA / "travel" / "dstc11") == "grounded"
    assert all(d.messages[0].role == "system" for d in found)


def test_n_draws_evenly_in_order_and_counts_the_others(write):
    path = write([{"id": str(k), "messages": chat(f"q{k}", f"x{k}")} for k in range(30)])
    counts = dict.fromkeys(range(30), 0)
    for seed in range(120):
        items, reading = read(path, n=10, seed=seed)
        numbers = [int(item.id) for item in items]
        assert numbers == sorted(set(numbers))
        assert len(numbers) == 10
        assert reading.removed.counts == {NOT_DRAWN: 20}
        for number in numbers:
            counts[number] += 1
    assert min(counts.values()) >= 20  # 40 on average, standard deviation 5.2
    assert max(counts.values()) <= 60
    assert [item.id for item in read(path, n=10, seed=3)[0]] == [
        item.id for item in read(path, n=10, seed=3)[0]
    ]


def test_n_above_what_is_there_keeps_all(write):
    path = write([{"id": str(k), "messages": chat(f"q{k}", f"x{k}")} for k in range(3)])
    items, reading = read(path, n=10)
    assert [item.id for item in items] == ["0", "1", "2"]
    assert not reading.removed.counts


def test_parts_of_one_file_lose_no_row(tmp_path):
    files = []
    for part in ("train.00000.jsonl", "train.00001.jsonl", "more/train.jsonl"):
        file = tmp_path / part
        file.parent.mkdir(exist_ok=True)
        rows = [{"messages": chat(f"{part} {k}", "x")} for k in range(3)]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        files.append(file)
    reading = Reading(DemonstrationSettings())
    found = list(read_demonstrations(files, reading))
    assert len({d.id for d in found}) == 9 and not reading.removed.counts
