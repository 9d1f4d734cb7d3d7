"""Votes go in once, come back as they were meant, and are read again by `load_votes`."""

from __future__ import annotations

import gzip
import json
import sqlite3
import threading
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from litee.collect.export import write_votes
from litee.collect.votes import load_pairs, load_votes
from litee.errors import ConfigError, InputError, ResourceError
from litee.records import Outcome, Pair
from litee.serve import tables, transfer, votes_store
from litee.serve.answers_in import make_checks
from litee.serve.ballots import ActIn, letters
from litee.serve.campaign import Campaign
from litee.serve.snapshot import take_snapshot
from litee.serve.vote_settings import VoteSettings
from litee.serve.voters import voter_rows


def test_a_vote_is_stored_by_letter_whatever_the_sides(campaign, act, tmp_path):
    c = campaign(12)
    person = c.person("Ana")
    expected, swaps = {}, set()
    for _ in range(12):
        tray, sheet, _ = act(c, person, "left")
        ballot = c.desk.ballots[sheet.ballot]
        question = c.desk.questions[ballot.pair]
        assert sheet.left == (
            question.pair.response_b if ballot.swapped else question.pair.response_a
        )
        expected[question.pair.id] = Outcome.B if ballot.swapped else Outcome.A
        swaps.add(ballot.swapped)
        assert tray.acks[0].status == "saved"
    assert swaps == {True, False}
    assert tray.sheets == ()
    votes = load_votes([tmp_path / "votes.db"]).votes
    assert {v.pair.id: v.winner for v in votes} == expected
    assert {v.annotator for v in votes} == {"Ana"}
    assert [v.pair for v in votes if v.pair.id == "p3"] == [c.desk.questions[3].pair]


def test_the_same_act_counts_once_and_another_one_is_a_conflict(campaign, act):
    c = campaign()
    person = c.person("Ana")
    _, _, sent = act(c, person, "left")
    again = c.act_now(person.number, [sent, sent])
    assert [a.status for a in again.acks] == ["again", "again"]
    other = sent.model_copy(update={"choice": "right"})
    assert c.act_now(person.number, [other]).acks[0].status == "conflict"
    with c.reader.connect() as connection:
        assert len(list(votes_store.acts(connection))) == 1


def test_a_ballot_of_somebody_else_or_of_nobody_is_refused(campaign, act):
    c = campaign()
    ana, ben = c.person("Ana"), c.person("Ben")
    tray = c.act_now(ana.number)
    sent = ActIn(ballot=tray.sheets[0].ballot, revision=1, choice="left")
    assert c.act_now(ben.number, [sent]).acks[0].status == "refused"
    sent = ActIn(ballot="nothing-here", revision=1, choice="left")
    assert c.act_now(ben.number, [sent]).acks[0].status == "refused"


@pytest.mark.parametrize(("act_name", "revision"), [("undo", 1), ("vote", 2), ("vote", 7)])
def test_acts_out_of_order_are_refused(campaign, act_name, revision):
    c = campaign()
    ana = c.person("Ana")
    sheet = c.act_now(ana.number).sheets[0]
    values = {"ballot": sheet.ballot, "revision": revision, "act": act_name}
    if act_name == "vote":
        values["choice"] = "tie"
    ack = c.act_now(ana.number, [ActIn.model_validate(values)]).acks[0]
    assert ack.status == "refused"


def test_undo_brings_the_ballot_back_first_and_keeps_the_trail(campaign, act, tmp_path):
    c = campaign(3)
    ana = c.person("Ana")
    _, sheet, _sent = act(c, ana, "left")
    undo = ActIn(ballot=sheet.ballot, revision=2, act="undo")
    tray = c.act_now(ana.number, [undo])
    assert tray.acks[0].status == "saved"
    assert tray.sheets[0].ballot == sheet.ballot
    assert tray.sheets[0].revision == 2
    assert tray.progress.done == 0
    tray, again, _ = act(c, ana, "both_bad", comment="neither")
    assert again.ballot == sheet.ballot
    with c.reader.connect() as connection:
        assert [a.act for a in votes_store.acts(connection)] == ["vote", "undo", "vote"]
    vote = load_votes([tmp_path / "votes.db"]).votes[0]
    assert (vote.winner, vote.reason) == (Outcome.BOTH_BAD, "neither")


def test_what_is_no_vote_is_counted_by_reason(campaign, act, tmp_path):
    c = campaign(4)
    ana, ben = c.person("Ana"), c.person("Ben")
    act(c, ana, None, act="skip")
    _, sheet, _ = act(c, ana, "left")
    c.act_now(ana.number, [ActIn(ballot=sheet.ballot, revision=2, act="undo")])
    act(c, ben, "right")
    c.change_person(ben.number, excluded=True)
    with pytest.raises(InputError, match="no usable vote"):
        load_votes([tmp_path / "votes.db"])
    act(c, ana, "tie")
    act(c, ana, "tie")
    read = load_votes([tmp_path / "votes.db"])
    assert read.dropped.counts == {
        "skipped by the voter": 1,
        "voter excluded by the owner": 1,
    }
    assert len(read.votes) == 2
    assert len(load_pairs(tmp_path / "votes.db")) == 2


def test_k_people_see_each_pair_once(campaign, act):
    c = campaign(5, people_per_pair=2)
    seen = []
    for name in ("Ana", "Ben", "Eva"):
        person = c.person(name)
        while c.act_now(person.number).sheets:
            _, sheet, _ = act(c, person, "tie")
            seen.append((person.name, c.desk.ballots[sheet.ballot].pair))
    assert len(seen) == len(set(seen)) == 10
    assert {name for name, _ in seen} == {"Ana", "Ben"}


def test_a_pair_that_waits_too_long_is_asked_of_another(campaign):
    c = campaign(1, hold_minutes=0.5)
    ana, ben = c.person("Ana"), c.person("Ben")
    assert c.act_now(ana.number).sheets
    assert not c.act_now(ben.number).sheets
    ballot = next(iter(c.desk.ballots.values()))
    ballot.at -= 100
    c.desk._swept = 0.0
    assert c.act_now(ben.number).sheets


def test_repeats_show_the_other_side_and_checks_are_not_exported(campaign, act, tmp_path):
    check = (Pair("check-1", ("2 + 2?",), ("4",), ("It rains.",)), Outcome.A)
    c = campaign(40, repeats=0.3, checks=0.3)
    c.add_pairs([], checks=[check])
    ana = c.person("Ana")
    while c.act_now(ana.number).sheets:
        act(c, ana, "left")
    shown = c.ballots_of(ana.number)
    purposes = [b.purpose for b in shown]
    assert purposes.count("vote") == 40
    assert purposes.count("check") == 1
    assert purposes.count("repeat") >= 5
    first = {b.pair: b for b in shown if b.purpose == "vote"}
    for ballot in shown:
        if ballot.purpose == "repeat":
            assert ballot.swapped != first[ballot.pair].swapped
            assert ballot.number - first[ballot.pair].number >= 8
    read = load_votes([tmp_path / "votes.db"])
    assert len(read.votes) == 40
    assert read.dropped.counts["attention check"] == 1
    assert read.dropped.counts["hidden repeat of a pair (for self-agreement)"] == purposes.count(
        "repeat"
    )


def test_a_reopened_campaign_goes_on_where_it_was(campaign, act, tmp_path):
    c = campaign(6, ahead=2)
    ana = c.person("Ana")
    act(c, ana, "left")
    before = c.act_now(ana.number)
    c.close()
    c = campaign(6, ahead=2)
    assert c.person("Ana") == ana
    assert c.act_now(ana.number) == before


def test_the_same_seed_asks_in_the_same_order(tmp_path, act, pairs):
    orders = []
    for name in ("one.db", "two.db"):
        c = Campaign(str(tmp_path / name), VoteSettings(seed=7, ahead=1))
        c.add_pairs(pairs(15))
        ana = c.person("Ana")
        for _ in range(15):
            act(c, ana)
        orders.append([(b.pair, b.swapped, b.purpose) for b in c.ballots_of(ana.number)])
        c.close()
    assert orders[0] == orders[1]


def test_the_database_refuses_to_change_votes(campaign, act, tmp_path):
    c = campaign()
    act(c, c.person("Ana"))
    with sqlite3.connect(tmp_path / "votes.db") as database:
        for table in ("vote", "audit"):
            for sql in (f"DELETE FROM {table}", f"UPDATE {table} SET at = 0"):
                with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                    database.execute(sql)
    database.close()


def test_a_database_without_votes_says_how_to_get_some(campaign, tmp_path):
    campaign().person("Ana")
    with pytest.raises(InputError, match="nobody has voted yet") as refused:
        load_votes([str(tmp_path / "votes.db")])
    assert "litee vote --db" in refused.value.fix


def failing(reason: str) -> Callable[..., None]:
    """A stand-in for what talks to the database and cannot."""

    def fail(*_: object) -> None:
        raise sa.exc.OperationalError("…", {}, sqlite3.OperationalError(reason))

    return fail


def test_a_failed_commit_acknowledges_nothing_and_the_desk_forgets_it(campaign, act, monkeypatch):
    c = campaign()
    ana = c.person("Ana")
    sheet = c.act_now(ana.number).sheets[0]
    sent = ActIn(ballot=sheet.ballot, revision=1, choice="left")

    with monkeypatch.context() as patch:
        patch.setattr(c._committer, "_flush", failing("disk is full"))
        with pytest.raises(ResourceError, match="disk is full"):
            c.act_now(ana.number, [sent])
    assert c.desk.ballots[sheet.ballot].act is None
    assert c.act_now(ana.number, [sent]).acks[0].status == "saved"


def test_a_database_that_was_away_is_found_again(campaign, act, monkeypatch):
    """Neither the vote nor the fresh look at the database gets through; then both do."""
    c = campaign()
    ana = c.person("Ana")
    sheet = c.act_now(ana.number).sheets[0]
    sent = ActIn(ballot=sheet.ballot, revision=1, choice="left")

    gone = failing("no connection")
    with monkeypatch.context() as patch:
        patch.setattr(c._committer, "_flush", gone)
        patch.setattr(c._committer, "_on_failure", gone)
        for _ in range(2):
            with pytest.raises(ResourceError, match="no connection"):
                c.act_now(ana.number, [sent])
            c._committer._thread.join(0.1)
            assert c._committer._thread.is_alive()
    assert c.act_now(ana.number, [sent]).acks[0].status == "saved"
    assert c.desk.ballots[sheet.ballot].winner in (Outcome.A, Outcome.B)


def test_work_that_nobody_waits_for_any_more_stops_nothing(campaign):
    c = campaign()
    entered, go_on = threading.Event(), threading.Event()

    def slow(_: sa.Connection) -> None:
        entered.set()
        go_on.wait(10)

    first = c._committer._put(slow)
    entered.wait(10)
    second = c._committer._put(lambda _: None)
    assert not first.cancel() and second.cancel()  # what runs cannot be taken back
    go_on.set()
    assert first.result(10) is None
    assert c.person("Ana").name == "Ana"  # the thread lives


def test_pairs_of_somebody_excluded_are_asked_again(campaign, act):
    c = campaign(5, people_per_pair=1)
    bad, good = c.person("bad"), c.person("good")
    for _ in range(5):
        act(c, bad, "left")
    assert c.act_now(good.number).sheets == ()
    c.change_person(bad.number, excluded=True)
    for _ in range(5):
        act(c, good, "left")
    assert sum(b.person == good.number for b in c.desk.ballots.values()) == 5
    c.change_person(bad.number, excluded=False)
    third = c.person("third")
    assert c.act_now(third.number).sheets == ()


def test_more_pairs_make_other_checks(campaign, pairs):
    few, many = pairs(60), pairs(75)
    c = campaign(0)
    c.add_pairs(few, checks=make_checks(few, share=0.1, seed=0))
    assert c.add_pairs(many, checks=make_checks(many, share=0.1, seed=0)) == 15


def test_undo_takes_back_what_a_person_did_last_here(campaign, act, tmp_path):
    c = campaign()
    ana = c.person("Ana")
    _, _, one = act(c, ana, "left")
    _, _, two = act(c, ana, "left")
    assert c.desk.last_act(ana.number).id == two.ballot
    act_again = ActIn(ballot=two.ballot, revision=2, act="undo")
    c.act_now(ana.number, [act_again])
    assert c.desk.last_act(ana.number).id == one.ballot
    c.act_now(ana.number, [ActIn(ballot=two.ballot, revision=3, choice="right")])
    row = {"id": "v", "prompt": "q", "response_a": "x", "response_b": "y", "winner": "a"}
    file = json.dumps(row | {"annotator": "Ana"}).encode()
    assert transfer.import_file(c, "old.jsonl", file).votes == 1
    assert c.desk.last_act(ana.number).id == two.ballot
    reopened = campaign(where=str(tmp_path / "votes.db"))
    assert reopened.desk.last_act(ana.number).id == two.ballot


def test_imported_votes_were_on_no_side(campaign):
    c = campaign()
    rows = [
        {"prompt": f"q{k}", "response_a": "x", "response_b": "y", "winner": "a", "annotator": "Bo"}
        for k in range(20)
    ]
    file = "".join(json.dumps(row) + "\n" for row in rows).encode()
    assert transfer.import_file(c, "old.jsonl", file).votes == 20
    (row,) = [r for r in voter_rows(take_snapshot(c.reader)) if r.name == "Bo"]
    assert (row.votes, row.left, row.right, row.flags) == (20, 0, 0, ())


def test_votes_of_nobody_in_particular_are_all_imported(campaign):
    c = campaign(0)
    rows = [
        {"pair_id": p, "prompt": p, "response_a": "x", "response_b": "y", "winner": w}
        for p in ("p", "q")
        for w in "aab"
    ]
    file = "".join(json.dumps(row) + "\n" for row in rows).encode()
    found = transfer.import_file(c, "old.jsonl", file)
    assert (found.pairs, found.votes, found.known) == (2, 6, 0)
    assert transfer.import_file(c, "old.jsonl", file).known == 6
    names = {"An unusually long name of a person who votes in many languages, " + k for k in "ab"}
    named = "".join(json.dumps(rows[0] | {"annotator": name}) + "\n" for name in names).encode()
    assert transfer.import_file(c, "named.jsonl", named).votes == 2


def test_a_packed_upload_may_have_several_parts_and_no_torn_one(campaign):
    c = campaign(0)
    parts = [
        gzip.compress(
            json.dumps({"prompt": k, "response_a": "x", "response_b": "y"}).encode() + b"\n"
        )
        for k in "abc"
    ]
    assert transfer.import_file(c, "pairs.jsonl.gz", b"".join(parts)).pairs == 3
    with pytest.raises(InputError, match="ends too early"):
        transfer.import_file(c, "pairs.jsonl.gz", parts[0] + parts[1][:-9])


def test_every_download_that_is_offered_works(campaign, act):
    c = campaign()
    person = c.person("Ana")
    for _ in range(4):
        act(c, person, "left")
    for form in transfer.FORMATS:
        name, data = transfer.export(c, form.name)
        assert name == form.file and data


def test_a_newer_or_a_foreign_database_is_refused(tmp_path):
    engine = tables.open_engine(str(tmp_path / "new.db"))
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE litee_schema SET version = 99")
    engine.dispose()
    with pytest.raises(InputError, match="newer version"):
        tables.open_engine(str(tmp_path / "new.db"))
    with sqlite3.connect(tmp_path / "other.db") as database:
        database.execute("CREATE TABLE pair (x)")
    database.close()
    with pytest.raises(InputError, match="something else"):
        tables.open_engine(str(tmp_path / "other.db"))
    (tmp_path / "text.db").write_text("no database at all, only text " * 50)
    with pytest.raises(InputError, match="not a database"):
        tables.open_engine(str(tmp_path / "text.db"))
    with pytest.raises(InputError, match="no database of the voting page"):
        load_votes([tmp_path / "text.db"])


def test_migrations_run_once_and_in_order(tmp_path):
    engine = tables.open_engine(str(tmp_path / "votes.db"))

    def second(connection: sa.Connection) -> None:
        connection.exec_driver_sql("ALTER TABLE person ADD COLUMN note TEXT")

    steps = (*tables.MIGRATIONS, second)
    with engine.begin() as connection:
        assert tables.migrate(connection, steps=steps) == 1
        assert tables.migrate(connection, steps=steps) == 0
        assert "note" in {c["name"] for c in sa.inspect(connection).get_columns("person")}
    engine.dispose()


def test_pairs_are_added_once_and_a_changed_one_is_an_error(campaign, pairs):
    c = campaign(4)
    assert c.add_pairs(pairs(6)) == 2
    changed = [Pair("p1", ("other",), ("x",), ("y",))]
    with pytest.raises(InputError, match="'p1' is there with another content"):
        c.add_pairs(changed)


@pytest.mark.parametrize("name", ["", "   ", "x" * 61, "a\x00b", "a\x1bb"])
def test_odd_names_are_refused(campaign, name):
    with pytest.raises(InputError, match="cannot be a person's name"):
        campaign().person(name)


def test_votes_are_not_written_to_a_database(campaign, act, tmp_path):
    c = campaign()
    act(c, c.person("Ana"))
    votes = load_votes([tmp_path / "votes.db"]).votes
    with pytest.raises(ConfigError, match="not written to a database"):
        write_votes(votes, tmp_path / "out.db")
    write_votes(votes, tmp_path / "out.jsonl")
    assert load_votes([tmp_path / "out.jsonl"]).votes == votes


@given(st.sampled_from(["left", "right", "tie", "both_bad"]))
def test_exchanging_the_sides_exchanges_the_winner(side):
    assert letters(side, swapped=True) == letters(side, swapped=False).swapped
