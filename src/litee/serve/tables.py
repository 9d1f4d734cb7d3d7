"""The tables of the voting page, on SQLite or PostgreSQL, and how older ones are brought along.

Votes and the audit trail are append-only: the database itself refuses to change or delete them.
Knows nothing of people's links, of pages and of what is asked next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection

from litee.errors import InputError, ResourceError

METADATA = sa.MetaData()

#: What is judged. `kind`: vote, check (the better answer is known) or live (made on the page).
PAIR = sa.Table(
    "pair",
    METADATA,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("prompt", sa.JSON, nullable=False),
    sa.Column("response_a", sa.JSON, nullable=False),
    sa.Column("response_b", sa.JSON, nullable=False),
    sa.Column("model_a", sa.Text, nullable=False),
    sa.Column("model_b", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("expected", sa.Text, nullable=False),  # the known winner of a check, else ""
    sa.Column("judge", sa.JSON, nullable=True),  # [P(A), P(B), P(tie)] of a judge, if any
)

PERSON = sa.Table(
    "person",
    METADATA,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("link", sa.Integer, nullable=False),  # counts up when the link is renewed
    sa.Column("excluded", sa.Boolean, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
)

#: A pair shown to a person. `purpose`: vote, repeat or check. `swapped`: B was on the left.
BALLOT = sa.Table(
    "ballot",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, nullable=False, unique=True),
    sa.Column("person", sa.Integer, sa.ForeignKey("person.number"), nullable=False),
    sa.Column("pair", sa.Integer, sa.ForeignKey("pair.number"), nullable=False),
    sa.Column("purpose", sa.Text, nullable=False),
    sa.Column("swapped", sa.Boolean, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.UniqueConstraint("person", "pair", "purpose"),
)

#: What a person did with a ballot; the highest revision counts. `kind`: vote, undo or skip.
VOTE = sa.Table(
    "vote",
    METADATA,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("ballot", sa.Text, sa.ForeignKey("ballot.id"), nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("winner", sa.Text, nullable=True),  # a, b, tie, both_bad: of the pair, not the sides
    sa.Column("details", sa.JSON, nullable=False),
    sa.Column("seconds", sa.Float, nullable=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.UniqueConstraint("ballot", "revision"),
)

#: Everything else that was done: started, imported, added a person, exported, …
AUDIT = sa.Table(
    "audit",
    METADATA,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("details", sa.JSON, nullable=False),
)

_VERSION = sa.Table("litee_schema", sa.MetaData(), sa.Column("version", sa.Integer))

_APPEND_ONLY = ("vote", "audit")

Migration = Callable[[sa.Connection], None]


def _first(connection: sa.Connection) -> None:
    """Tables, and triggers that make votes and audit trail append-only."""
    METADATA.create_all(connection)
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(
            "CREATE OR REPLACE FUNCTION litee_append_only() RETURNS trigger AS "
            "$$ BEGIN RAISE EXCEPTION '%% is append-only', TG_TABLE_NAME; END $$ LANGUAGE plpgsql"
        )
    for table in _APPEND_ONLY:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(
                f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE "
                f"ON {table} FOR EACH STATEMENT EXECUTE FUNCTION litee_append_only()"
            )
            continue
        for action in ("UPDATE", "DELETE"):
            connection.exec_driver_sql(
                f"CREATE TRIGGER {table}_no_{action.lower()} BEFORE {action} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
            )


#: Step k brings version k to version k + 1.
MIGRATIONS: tuple[Migration, ...] = (_first,)


def database_url(where: str) -> sa.URL:
    """A path or URL as a database URL with the drivers used here.

    >>> database_url("votes.db").drivername, database_url("postgresql://me@host/v").drivername
    ('sqlite', 'postgresql+psycopg')

    Raises:
        InputError: a URL of another kind of database, or one that cannot be read.
    """
    if "://" not in where:
        return sa.URL.create("sqlite", database=where)
    try:
        url = sa.make_url(where)
    except (sa.exc.ArgumentError, ValueError) as error:
        fix = "write postgresql://user@host:port/name, or the path of a file"
        raise InputError("the database's URL cannot be read", fix=fix) from error
    kind = url.drivername.split("+")[0]
    if kind in {"postgresql", "postgres"}:
        return url.set(drivername="postgresql+psycopg")
    if kind == "sqlite":
        return url.set(drivername="sqlite")
    raise InputError(
        f"no votes can be kept in a {kind!r} database",
        fix="use postgresql://user@host:port/name, or the path of an SQLite file",
    )


def open_engine(where: str) -> sa.Engine:
    """Connect to the database and bring its tables up to date.

    Raises:
        InputError: the file is no database, or belongs to something else or a newer version.
        ResourceError: the database cannot be reached or written.
    """
    url = database_url(where)
    place = url.render_as_string(hide_password=True)
    if url.drivername == "sqlite":
        place = url.database or ":memory:"
        _check_file(Path(place))
        engine = sa.create_engine(url, connect_args={"timeout": 30, "check_same_thread": False})
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin)
    else:
        engine = sa.create_engine(url, pool_pre_ping=True)
    try:
        with engine.begin() as connection:
            migrate(connection, place=place)
    except sa.exc.DatabaseError as error:
        engine.dispose()
        reason = str(error.orig).splitlines()[0]
        if "not a database" in reason:
            fix = "name another file, or move this one away"
            raise InputError(f"no SQLite database: {reason}", place=place, fix=fix) from error
        fix = "check that the database runs, may be written, and has room"
        raise ResourceError(f"cannot open: {reason}", place=place, fix=fix) from error
    return engine


def migrate(
    connection: sa.Connection, *, place: str = "", steps: Sequence[Migration] = MIGRATIONS
) -> int:
    """Run the steps that the database lacks, within the caller's transaction.

    Returns:
        How many steps were run.

    Raises:
        InputError: the tables are of a newer version, or the database is used by something else.
    """
    inspector = sa.inspect(connection)
    if not inspector.has_table(_VERSION.name):
        if inspector.has_table(PAIR.name) or inspector.has_table(VOTE.name):
            fix = "name another database for the votes"
            raise InputError("the database has tables of something else", place=place, fix=fix)
        _VERSION.create(connection)
        connection.execute(_VERSION.insert().values(version=0))
    version = int(connection.execute(sa.select(_VERSION.c.version)).scalar_one())
    if version > len(steps):
        fix = "update lora-litee, or name another database"
        raise InputError("the votes were kept by a newer version", place=place, fix=fix)
    for number, step in enumerate(steps[version:], start=version + 1):
        step(connection)
        connection.execute(_VERSION.update().values(version=number))
    return len(steps) - version


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise InputError("is a folder, not a file", place=str(path), fix="name a file")
    if not path.parent.is_dir():
        fix = "make the folder first, or name another file"
        raise InputError("the folder does not exist", place=str(path), fix=fix)


def _prepare_sqlite(connection: DBAPIConnection, _: object) -> None:
    """Write-ahead log, every commit on the disk, and transactions left to SQLAlchemy."""
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: sa.Connection) -> None:
    """Take the write lock at once, unless the connection only reads (see `reading`)."""
    only_reads = connection.get_execution_options().get("litee_reads", False)
    connection.exec_driver_sql("BEGIN" if only_reads else "BEGIN IMMEDIATE")


def reading(engine: sa.Engine) -> sa.Engine:
    """The same database, for connections that only read and wait for nobody."""
    return engine.execution_options(litee_reads=True)
