"""`litee vote`: a blind voting page for people.

Parses, calls `litee.serve` and prints; knows nothing of how votes are kept.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from litee.config import load_settings
from litee.errors import ConfigError
from litee.serve.vote_settings import LOCAL_HOSTS, VoteSettings, live_system

if TYPE_CHECKING:
    from litee.serve.campaign import Campaign
    from litee.serve.live import Systems
    from litee.serve.vote_server import Invitation

_DEFAULTS = VoteSettings()


def _help(name: str) -> str:
    """Description and default of a setting, from the one place that has them."""
    value = getattr(_DEFAULTS, name)
    shown = ", ".join(map(str, value)) if isinstance(value, tuple) else value
    return f"{VoteSettings.model_fields[name].description} (default: {shown})"


PairsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        help="Files of pairs, or of answers (prompt, system, answer per row); none to go on "
        "with what the database holds."
    ),
]
DbOption = Annotated[
    str, typer.Option(help="Where the votes are kept: a file, or postgresql://user@host/name.")
]
VoterOption = Annotated[
    list[str] | None,
    typer.Option(help="Somebody who gets a link (default: me). More on the owner's page."),
]
ChecksOption = Annotated[
    str,
    typer.Option(
        "--checks-file",
        help="Votes file of attention checks; without one, checks are made from the pairs.",
    ),
]
JudgeOption = Annotated[
    str, typer.Option(help="A judge to compare with people and to choose what is asked.")
]
KeyOption = Annotated[
    Path | None, typer.Option(help="File of the links' key (default: beside the database).")
]


def vote(
    pairs: PairsArgument = None,
    *,
    db: DbOption = "votes.db",
    voter: VoterOption = None,
    checks: ChecksOption = "",
    judge: JudgeOption = "",
    key: KeyOption = None,
    export: Annotated[
        Path | None, typer.Option(help="Write the votes kept so far to this file, and stop.")
    ] = None,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")
    ] = True,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.")] = None,
    title: Annotated[str | None, typer.Option(help=_help("title"))] = None,
    mode: Annotated[str | None, typer.Option(help=_help("mode"))] = None,
    people_per_pair: Annotated[int | None, typer.Option(help=_help("people_per_pair"))] = None,
    per_person: Annotated[int | None, typer.Option(help=_help("per_person"))] = None,
    choice: Annotated[str | None, typer.Option(help=_help("choice"))] = None,
    repeats: Annotated[float | None, typer.Option(help=_help("repeats"))] = None,
    check_share: Annotated[float | None, typer.Option("--checks", help=_help("checks"))] = None,
    ratings: Annotated[
        bool | None, typer.Option("--ratings/--no-ratings", help=_help("ratings"))
    ] = None,
    host: Annotated[str | None, typer.Option(help=_help("host"))] = None,
    port: Annotated[int | None, typer.Option(help=_help("port"))] = None,
    public_url: Annotated[str | None, typer.Option(help=_help("public_url"))] = None,
    live: Annotated[list[str] | None, typer.Option(help=_help("live"))] = None,
    seed: Annotated[int | None, typer.Option(help=_help("seed"))] = None,
) -> None:
    """Let people vote blindly on a page; the votes are training data at once.

    With --live (two or more) people also type questions of their own, which two systems answer.

    Further settings (every one in docs/settings.md) go into the --config file.
    """
    given = {
        "title": title,
        "mode": mode,
        "people_per_pair": people_per_pair,
        "per_person": per_person,
        "choice": choice,
        "repeats": repeats,
        "checks": check_share,
        "ratings": ratings,
        "host": host,
        "port": port,
        "public_url": public_url,
        "live": live or None,
        "seed": seed,
    }
    settings = load_settings(VoteSettings, config, given)
    if export is not None:
        _export(db, settings, export)
        return
    _serve(
        settings, pairs or [], db, voter or [], checks=checks, judge=judge, key=key, open_=browser
    )


def _serve(
    settings: VoteSettings,
    pairs: list[str],
    db: str,
    voters: list[str],
    *,
    checks: str,
    judge: str,
    key: Path | None,
    open_: bool,
) -> None:
    from litee.serve.answers_in import make_checks, read_checks, read_pairs
    from litee.serve.vote_server import key_path, serve_votes

    asked = [pair for path in pairs for pair in read_pairs(path, seed=settings.seed)]
    if checks:
        made = read_checks(checks)
    else:
        made = make_checks(asked, share=settings.checks, seed=settings.seed)

    def prepare(campaign: Campaign) -> None:
        if not campaign.desk.people:
            campaign.person("me")
        if judge:
            from litee.serve.vote_judge import add_judge

            add_judge(campaign, judge)

    serve_votes(
        db,
        settings,
        key=key or key_path(db),
        pairs=asked,
        checks=made,
        people=voters,
        prepare=prepare,
        systems=_systems(settings),
        ready=lambda invitation: _say(invitation, db, settings, open_=open_),
    )


def _systems(settings: VoteSettings) -> Systems | None:
    """What answers people's own questions; imports the engines only when somebody may ask."""
    if not settings.live:
        return None
    from litee.serve.engines_remote import ENDPOINT_KEY
    from litee.serve.live_systems import RemoteSystems

    systems = [live_system(text) for text in settings.live]
    key = os.environ.get(ENDPOINT_KEY, "")
    return RemoteSystems(systems, key=key, max_tokens=settings.live_tokens)


def _say(invitation: Invitation, db: str, settings: VoteSettings, *, open_: bool) -> None:
    """Print the links, and open the first."""
    import webbrowser

    for person, link in invitation.people[:20]:
        typer.echo(f"vote as {person.name}: {link}")
    if len(invitation.people) > 20:
        typer.echo(f"… and {len(invitation.people) - 20} more on the owner's page")
    typer.echo(f"owner's page: {invitation.owner}")
    if "://" in db:
        typer.echo(
            f"Ctrl-C stops. Then: litee vote --db {_without_password(db)} --export votes.jsonl"
        )
    else:
        typer.echo(f"Ctrl-C stops; the votes stay in {db}. Then: litee fit {db} --out judge")
    if settings.host not in LOCAL_HOSTS and not settings.public_url.startswith("https://"):
        typer.echo("Links travel unencrypted: use them in a network you trust.", err=True)
    if open_ and invitation.people:
        webbrowser.open(invitation.people[0][1])


def _without_password(url: str) -> str:
    from litee.serve.tables import database_url

    return database_url(url).render_as_string(hide_password=True)


def _export(db: str, settings: VoteSettings, out: Path) -> None:
    from litee.collect.export import write_votes
    from litee.serve.snapshot import take_snapshot
    from litee.serve.tables import open_engine, reading

    if "://" not in db and not Path(db).is_file():
        raise ConfigError("there is no such database", place=db, fix="name one with --db")
    engine = open_engine(db)
    try:
        votes = take_snapshot(reading(engine)).votes()
    finally:
        engine.dispose()
    written = write_votes(votes, out)
    typer.echo(f"{written.rows:,} votes in {out}")
