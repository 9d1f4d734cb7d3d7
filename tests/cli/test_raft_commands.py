"""`litee index`, `litee raft` and `litee data posts` from the command line to their files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import litee, write_rows, write_yaml

from litee.cli.index import _deep
from litee.encode.retrieval import Hit, SearchSettings
from litee.records import Chunk
from litee.score.retrieval import Query

NOUNS = "amber basin cedar delta ember fjord grove harbor island jungle kernel lagoon".split()  # noqa: SIM905


@pytest.fixture(scope="module")
def knowledge(tmp_path_factory) -> Path:
    """Twelve houses with five questions each."""
    hotels = {
        str(e): {
            "name": f"HOUSE {name.upper()}",
            "docs": {
                str(k): {
                    "title": f"Is there a {NOUNS[k]}?",
                    "body": f"The {NOUNS[k]} of house {e} opens at {k}{e} each day.",
                }
                for k in range(5)
            },
        }
        for e, name in enumerate(NOUNS)
    }
    file = tmp_path_factory.mktemp("base") / "knowledge.json"
    file.write_text(json.dumps({"hotel": hotels}))
    return file


@pytest.fixture(scope="module")
def index(tmp_path_factory, knowledge) -> Path:
    out = tmp_path_factory.mktemp("index") / "i"
    done = litee("index", "build", knowledge, "--out", out, "--no-embeddings")
    assert done.code == 0, done.err
    assert "60 documents, 60 chunks" in done.err
    return out


def test_search_shows_chunks_with_their_source(index, knowledge):
    done = litee("index", "search", index, "House Ember: cedar at 24?", "--k", 2)
    assert done.code == 0
    assert done.out.startswith("1. hotel/4/faq/2  ")
    assert str(knowledge) in done.out
    done = litee("index", "search", index, "House Ember: cedar at 24?", "--json", "--k", 1)
    (hit,) = [json.loads(line) for line in done.out.splitlines()]
    assert (hit["rank"], hit["id"], hit["bm25_rank"]) == (1, "hotel/4/faq/2", 1)
    assert litee("index", "search", index, "zzz").err == "nothing found\n"


def test_evaluation_reads_queries_and_labels(index, knowledge, tmp_path):
    queries = [
        {"query": f"House {name}: Is there a basin?", "gold": [f"hotel/{e}/faq/1"]}
        for e, name in enumerate(NOUNS)
    ]
    file = write_rows(tmp_path / "q.jsonl", queries)
    done = litee("index", "evaluate", index, file, "--out", tmp_path / "r.json")
    assert done.code == 0, done.err
    assert "12 queries, 12 groups" in done.out
    assert json.loads((tmp_path / "r.json").read_text())["bm25"]["recall_at_5"] == 1.0
    gold = {"domain": "hotel", "entity_id": 3, "doc_id": 2}
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps([{"target": True, "knowledge": [gold], "response": "Yes."}]))
    done = litee("index", "evaluate", index, labels, "--knowledge", knowledge)
    assert done.code == 0, done.err
    assert "1 queries" in done.out


def test_a_long_document_does_not_hide_the_next_one():
    """Fifty chunks of one document come before the gold one's only chunk."""
    chunks = [Chunk(f"long#{k}", "long", "cedar", 0, 5) for k in range(50)]
    chunks.append(Chunk("gold#0", "gold", "cedar", 0, 5))

    class Search:
        def search(self, _: str, settings: SearchSettings) -> list[Hit]:
            return [Hit(c, k + 1, 1.0 / (k + 1)) for k, c in enumerate(chunks)][: settings.k]

    found = _deep(Search(), Query("cedar", frozenset({"gold"}), "g"), "bm25")
    assert found == ["long", "gold"]


@pytest.mark.parametrize(
    ("rows", "part"),
    [
        ([{"query": "q", "gold": ["nowhere"]}], "1 of 1 queries have no gold document"),
        ([{"query": "q"}], "no query with gold ids"),
    ],
)
def test_unusable_queries_are_named(index, tmp_path, rows, part):
    done = litee("index", "evaluate", index, write_rows(tmp_path / "q.jsonl", rows))
    done.refused(3, part)


def test_index_errors_have_their_codes(index, knowledge, tmp_path):
    litee("index", "search", tmp_path, "q").refused(3, "there is no index")
    litee("index", "search", index, "q", "--method", "embeddings").refused(2, "no embeddings")
    litee("index", "search", index, "q", "--method", "magic").refused(2, "magic")
    litee("index", "build", tmp_path / "no.txt", "--out", tmp_path / "x").refused(3, "no such file")
    done = litee("index", "build", knowledge, "--out", index, "--no-embeddings")
    assert done.code == 2
    assert "--resume" in done.err


def test_raft_from_documents_to_scored_answers(knowledge, tmp_path):
    out = tmp_path / "rows"
    done = litee("raft", "build", knowledge, "--out", out, "--distractors", 3)
    assert done.code == 0, done.err
    assert "training rows show the oracle (80%)" in done.out
    assert "all verbatim" in done.out
    done = litee("raft", "audit", out / "train.jsonl", "--json", "--out", tmp_path / "m.jsonl")
    (counts,) = json.loads(done.out).values()
    assert counts["quotes"] == counts["quotes_verbatim"] > 0
    done = litee("raft", "check", out / "train.jsonl", "--test", out / "test.k0.jsonl")
    assert done.code == 0, done.err
    assert "hold none of" in done.out
    tests = [json.loads(line) for line in (out / "test.k4.jsonl").read_text().splitlines()]
    leaked = {"messages": [{"role": "user", "content": f"As we know: {tests[0]['gold'][0]}"}]}
    leaks = write_rows(tmp_path / "leak.jsonl", [leaked])
    done = litee("raft", "check", leaks, "--test", out / "test.k0.jsonl")
    done.refused(3, "leak.jsonl, row 1", "holds the answer to a test question")
    answers = [
        {"id": t["id"], "answer": f"Well. <ANSWER>: {t['reference']}", "system": "s"} for t in tests
    ]
    file = write_rows(tmp_path / "a.jsonl", answers)
    clean = tmp_path / "clean.jsonl"
    done = litee("raft", "answers", file, "--test", out / "test.k4.jsonl", "--out", clean)
    assert done.code == 0, done.err
    for line, test in zip(clean.read_text().splitlines(), tests, strict=True):
        row = json.loads(line)
        assert row["answer"] == row["reference"] == test["reference"]
        assert len(row["contexts"]) == 5


def test_raft_refuses_what_contradicts(knowledge, tmp_path):
    base = ("raft", "build", knowledge, "--out", tmp_path / "x")
    litee(*base, "--labels", knowledge, "--model", "m").refused(2, "--labels")
    litee(*base, "--logs", knowledge).refused(2, "--logs needs --labels")
    litee(*base, "--base-url", "http://localhost:1").refused(2, "--model")
    litee(*base, "--oracle-share", "1.5").refused(2, "oracle_share")
    config = write_yaml(tmp_path / "c.yaml", {"oracles": 1})
    litee(*base, "--config", config).refused(2, "unknown setting 'oracles'")
    rows = write_rows(tmp_path / "r.jsonl", [{"text": "no row"}])
    litee("raft", "audit", rows).refused(3, "no RAFT row")


def test_raft_resumes_and_gives_the_same(knowledge, tmp_path):
    out = tmp_path / "rows"
    assert litee("raft", "build", knowledge, "--out", out).code == 0
    before = (out / "train.jsonl").read_bytes()
    (out / "train.jsonl").unlink()
    assert litee("raft", "build", knowledge, "--out", out).code == 2
    assert litee("raft", "build", knowledge, "--out", out, "--resume").code == 0
    assert (out / "train.jsonl").read_bytes() == before
    done = litee("raft", "build", knowledge, "--out", out, "--resume", "--seed", 1)
    assert done.code == 2
    assert "seed" in done.err


def test_an_endpoint_writes_the_rows(tmp_path, monkeypatch):
    """The endpoint is faked below the writer; its failures are counted, its texts kept."""
    from litee.score.endpoint import Endpoint, Reply

    asked: list[str] = []
    monkeypatch.setenv("OPENAI_API_KEY", "")

    def chat(self, messages, **more):
        prompt = messages[0]["content"]
        asked.append(prompt)
        noun = next(n for n in NOUNS if f"a {n} " in prompt)
        if noun == "lagoon":
            return Reply(None, "time-out")
        if "Question:" not in prompt:
            return Reply(f"1. Where is the {noun} of the town?")
        return Reply(f"See ##begin_quote##by the {noun} gate##end_quote##\n<ANSWER>: By the gate.")

    monkeypatch.setattr(Endpoint, "chat", chat)
    docs = tmp_path / "docs"
    docs.mkdir()
    for noun in NOUNS:
        (docs / f"{noun}.txt").write_text(f"We found a {noun} there. It lies by the {noun} gate.")
    base = ("raft", "build", docs, "--base-url", "http://127.0.0.1:9/v1", "--model", "m")
    done = litee(*base, "--out", tmp_path / "o", "--distractors", 2)
    assert done.code == 0, done.err
    assert "dropped 1: writer: time-out" in done.out
    assert len(asked) == 23
    done = litee(*base, "--out", tmp_path / "o", "--distractors", 2, "--resume")
    assert done.code == 0
    assert len(asked) == 24  # only the one that failed


def dump(path: Path) -> tuple[Path, Path]:
    posts = [
        {
            "id": f"p{k}",
            "title": f"What should we see in the town of {noun}?",
            "subreddit": "travel",
            "upvote_ratio": 0.7 if k == 0 else 0.95,
            "selftext": "Two days, u/friend helps.",
        }
        for k, noun in enumerate(NOUNS)
    ]
    comments = [
        {
            "id": f"c{k}{n}",
            "body": f"See the {NOUNS[n]} first.",
            "link_id": f"t3_p{k}",
            "parent_id": f"t3_p{k}",
            "score": 9 - n,
        }
        for k in range(1, 11)
        for n in range(5)
    ]
    return write_rows(path / "s.jsonl", posts), write_rows(path / "c.jsonl", comments)


def test_posts_of_a_dump_become_what_other_commands_read(tmp_path):
    out = tmp_path / "posts"
    done = litee("data", "posts", *dump(tmp_path), "--out", out)
    assert done.code == 0, done.err
    funnel = json.loads((out / "funnel.json").read_text())
    assert [s["posts"] for s in funnel["steps"]] == [12, 12, 12, 12, 11, 10]
    assert funnel["personal_data"] == {"user name": 10}
    assert "post without a usable comment" in done.out
    assert "u/friend" not in (out / "posts.jsonl").read_text()
    assert litee("data", "inspect", out / "preferences.jsonl").code == 0
    assert (
        litee(
            "index", "build", out / "documents.jsonl", "--out", tmp_path / "i", "--no-embeddings"
        ).code
        == 0
    )
    assert len((out / "demonstrations.jsonl").read_text().splitlines()) == 10


def test_posts_refuse_mixed_or_unknown_sources(tmp_path, monkeypatch):
    file, _ = dump(tmp_path)
    litee("data", "posts", file, "r/travel", "--out", tmp_path / "a").refused(2, "is no file")
    litee("data", "posts", "no.zst", "--out", tmp_path / "b").refused(2, "neither a file nor")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr("praw.config.Config.CONFIG", None)
    for name in ("praw_client_id", "praw_client_secret", "praw_user_agent"):
        monkeypatch.delenv(name, raising=False)
    litee("data", "posts", "r/travel", "--out", tmp_path / "c").refused(2, "no Reddit credentials")
