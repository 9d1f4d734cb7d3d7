"""The same campaign on PostgreSQL: votes, undo, append-only tables, exports, a second start."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from litee.collect.votes import load_votes
from litee.records import Outcome, Pair
from litee.serve import tables, votes_store
from litee.serve.ballots import ActIn
from litee.serve.snapshot import take_snapshot
from litee.serve.transfer import export
from postgres_cluster import WHY_NOT, cluster, find_binaries

pytestmark = pytest.mark.skipif(find_binaries() is None, reason=WHY_NOT)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with cluster() as address:
        yield address


def test_votes_go_in_once_and_come_out(url, campaign, act, tmp_path):
    c = campaign(5, where=url, ahead=2)
    ana = c.person("Ana")
    c.add_pairs([Pair("odd", ("a\x00b \U0001f600",), ("x\x00",), ("y",))])
    for choice in ("left", "right", "tie", "both_bad"):
        act(c, ana, choice, comment="nul \x00 and 😀")
    _, sheet, sent = act(c, ana, "left")
    assert c.act_now(ana.number, [sent]).acks[0].status == "again"
    undo = ActIn(ballot=sheet.ballot, revision=2, act="undo")
    assert c.act_now(ana.number, [undo]).acks[0].status == "saved"
    before = c.act_now(ana.number)
    c.close()

    again = campaign(5, where=url, ahead=2)
    assert again.act_now(ana.number) == before
    votes = take_snapshot(again.reader).votes()
    assert [v.winner for v in votes][2:] == [Outcome.TIE, Outcome.BOTH_BAD]
    assert {v.annotator for v in votes} == {"Ana"}
    name, data = export(again, "jsonl")
    (tmp_path / name).write_bytes(data)
    assert load_votes([tmp_path / name]).votes == votes


def test_the_database_refuses_to_change_votes(url, campaign, act):
    c = campaign(8, where=url)
    act(c, c.person("Ben"))
    for table in ("vote", "audit"):
        for sql in (f"DELETE FROM {table}", f"UPDATE {table} SET at = 0", f"TRUNCATE {table}"):
            with psycopg.connect(url) as connection:
                with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
                    connection.execute(sql)


def test_migrations_run_once(url):
    engine = tables.open_engine(url)
    with engine.begin() as connection:
        assert tables.migrate(connection) == 0
        assert list(votes_store.acts(connection))
    engine.dispose()
