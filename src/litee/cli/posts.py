"""`litee data posts`: a community's posts, filtered, as documents, demonstrations and pairs.

Parses, calls and prints; knows nothing of how posts are fetched and filtered.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from litee.config import load_settings
from litee.errors import ConfigError

if TYPE_CHECKING:
    from litee.collect.gathering import Tally
    from litee.collect.posts import Post, PostsSettings
    from litee.collect.posts_filters import Encoder, Step
    from litee.rundir import Json


def posts(
    sources: Annotated[
        list[str], typer.Argument(help="Subreddits (r/travel), or dumps (.jsonl, .zst).")
    ],
    *,
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.")] = None,
    site: Annotated[str, typer.Option(help="Section of praw.ini.")] = "",
    limit: Annotated[int | None, typer.Option(help="Posts per subreddit and listing.")] = None,
    language: Annotated[str | None, typer.Option(help="Language of titles; '' for any.")] = None,
    min_upvote_ratio: Annotated[float | None, typer.Option(help="Lowest up-vote ratio.")] = None,
    min_similarity: Annotated[
        float | None, typer.Option(help="Lowest similarity of question and first comment.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an earlier run.")] = False,
) -> None:
    """Fetch or read posts, filter them, take personal data out, and count what each step leaves.

    Writes posts, documents, demonstrations, preferences (all .jsonl) and funnel.json.
    """
    from litee.collect.gathering import Tally
    from litee.collect.posts import PostsSettings
    from litee.collect.posts_filters import filter_posts, scrub_posts

    given = {
        "limit": limit,
        "language": language,
        "min_upvote_ratio": min_upvote_ratio,
        "min_similarity": min_similarity,
    }
    settings = load_settings(PostsSettings, config, given)
    dumps = [Path(source) for source in sources if Path(source).is_file()]
    if dumps and len(dumps) != len(sources):
        missing = next(s for s in sources if not Path(s).is_file())
        raise ConfigError(
            f"{missing!r} is no file, the other sources are",
            fix="give subreddits or dumps, not both",
        )
    _manifest(out, sources, dumps, settings, resume=resume)
    dropped, personal = Tally(), Tally()
    found = (
        _dumped(dumps, settings, dropped)
        if dumps
        else _fetched(sources, settings, out, site, dropped)
    )
    encoder = _encoder() if settings.min_similarity is not None else None
    kept, steps = filter_posts(found, settings, dropped=dropped, encoder=encoder)
    kept = scrub_posts(kept, personal)
    _write(out, kept, steps, settings, dropped, personal)
    _show(out, steps, dropped, personal)


def _manifest(
    out: Path,
    sources: Sequence[str],
    dumps: Sequence[Path],
    settings: PostsSettings,
    *,
    resume: bool,
) -> None:
    from litee.rundir import RunDir, sha256_file

    manifest: dict[str, Json] = {
        "kind": "posts",
        "sources": list(sources),
        "inputs": {str(path): sha256_file(path) for path in dumps},
        "settings": settings.model_dump(mode="json"),
    }
    RunDir(out, manifest, resume=resume)


def _dumped(dumps: Sequence[Path], settings: PostsSettings, dropped: Tally) -> list[Post]:
    from litee.collect.posts_dump import read_dumps

    return read_dumps(dumps, settings.most_comments, dropped)


def _fetched(
    sources: Sequence[str], settings: PostsSettings, out: Path, site: str, dropped: Tally
) -> list[Post]:
    from litee.collect.reddit_api import Fetcher, Journal, open_reddit
    from litee.progress import progress

    wrong = [
        s for s in sources if not s.removeprefix("/").removeprefix("r/").replace("_", "").isalnum()
    ]
    if wrong:
        fix = "write subreddits as r/travel, and check the paths of dumps"
        raise ConfigError(f"{wrong[0]!r} is neither a file nor a subreddit", fix=fix)
    journal = Journal(out / "journal.jsonl")
    journal.read()
    total = len(sources) * len(settings.listings)
    with progress("reading Reddit", total, "listings") as advance:
        Fetcher(open_reddit(site), settings, journal, dropped).fetch(sources, advance)
    return list(journal.posts.values())


def _encoder() -> Encoder:
    from litee.score.neural import SentenceEncoder

    return SentenceEncoder()


def _write(
    out: Path,
    kept: Sequence[Post],
    steps: Sequence[Step],
    settings: PostsSettings,
    dropped: Tally,
    personal: Tally,
) -> None:
    from litee.collect.demonstrations import write_demonstrations
    from litee.collect.posts import write_posts
    from litee.collect.posts_export import demonstrations, documents, preferences
    from litee.rundir import write_json

    write_posts(out / "posts.jsonl", kept)
    _lines(out / "documents.jsonl", documents(kept))
    write_demonstrations(out / "demonstrations.jsonl", demonstrations(kept))
    pairs = list(preferences(kept, seed=settings.seed, dropped=dropped))
    _lines(out / "preferences.jsonl", pairs)
    funnel: dict[str, Json] = {
        "steps": [{"name": s.name, "posts": s.posts, "comments": s.comments} for s in steps],
        "dropped": dict(dropped.counts),
        "examples": {reason: list(places) for reason, places in dropped.examples.items()},
        "personal_data": dict(personal.counts),
        "preference_pairs": len(pairs),
    }
    write_json(out / "funnel.json", funnel)


def _lines(path: Path, rows: Iterable[dict[str, Json]]) -> None:
    from litee.rundir import atomic_writer

    with atomic_writer(path) as handle:
        for row in rows:
            handle.write(json.dumps(row, ensure_ascii=False) + "\n")


def _show(out: Path, steps: Sequence[Step], dropped: Tally, personal: Tally) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{out}")
    for name in ("step", "posts", "comments"):
        table.add_column(name, justify="left" if name == "step" else "right")
    for step in steps:
        table.add_row(step.name, f"{step.posts:,}", f"{step.comments:,}")
    console = Console()
    console.print(table)
    for reason, count in dropped.counts.items():
        console.print(f"  dropped {count:,}: {reason}", highlight=False)
    for kind, count in personal.counts.items():
        console.print(f"  removed {count:,}: {kind}", highlight=False)
