"""Stack Exchange dumps (Posts.xml, or the site's .7z) to demonstrations, as LIMA chose them.

Per site the best-scored questions whose title stands alone, each with its best answer, when that
passes the filters; then a sample over sites that favours small ones. Two passes over the posts;
memory grows with the number of answered questions (a few numbers each) and with `per_site` texts.
Knows nothing of other sources. Source: Zhou et al. (2023), "LIMA", section 2.1.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from xml.etree import ElementTree

from litee.collect.demonstration_settings import STEM_SITES
from litee.collect.lima_filters import (
    FIRST_PERSON,
    LOW_SCORE,
    NOT_ALONE,
    REFERENCE,
    first_person,
    length_fault,
    refers,
    stands_alone,
)
from litee.collect.markup import to_markdown
from litee.collect.reading import Reading
from litee.collect.seven_zip import extracted, is_seven_zip
from litee.collect.zst import open_stream
from litee.errors import InputError
from litee.records import Demonstration, Message

BROKEN_ROW = "broken XML row"
CUT_ROW = "last row cut off"
NO_END = "file ends before its closing tag"
ORPHAN = "answer comes before its question or has none"
NO_ANSWER = "question without an answer"
NOT_BEST = "not the question's best answer"
CROWDED = "beyond the best-scored questions of the site (per_site)"
LICENSE = "CC BY-SA 4.0"

_BLOCK = 1 << 20
#: A post is limited to 30,000 characters; a row that is longer than this is damage.
_LONGEST_ROW = 4 << 20
_ROW = re.compile(rb"<row\b[^<]*")
_SITE = re.compile(r"^(?P<site>.+?)(?:\.stackexchange\.com|\.com|\.net)?(?:-Posts)?$")

Post = dict[str, str]


def rows(stream: IO[bytes], place: str, reading: Reading) -> Iterator[Post]:
    """The attributes of each `<row …/>`; broken rows are counted, the next one is found again.

    An attribute cannot hold a literal `<`, so a row ends before the next one.
    """
    rest, number, ended, closed = b"", 0, False, False
    while not ended:
        block = stream.read(_BLOCK)
        ended = not block
        rest += block
        cut = len(rest) if ended else rest.rfind(b"<")
        if cut < 0:  # no mark at all: nothing that could become a row
            rest = b""
        if cut <= 0 and not ended and len(rest) < _LONGEST_ROW:
            continue
        for found in _ROW.finditer(rest[:cut] if cut > 0 else rest):
            number += 1
            try:
                element = ElementTree.fromstring(found[0].rstrip())
            except (ElementTree.ParseError, ValueError):
                last = ended and found.end() == len(rest)
                reading.lost.add(CUT_ROW if last else BROKEN_ROW, f"{place}, post {number}")
                continue
            yield dict(element.attrib)
        closed = closed or b"</posts" in rest
        rest = rest[cut:] if cut > 0 else b""
    if number and not closed:
        reading.lost.add(NO_END, f"{place}, after post {number}")


@dataclass(slots=True)
class _Best:
    """A question's best answer so far."""

    score: int
    id: int
    fault: str


@dataclass(slots=True)
class _Question:
    """A question that is held, and later its answer's text."""

    title: str
    body: str
    license: str
    answer: str = ""


@dataclass(slots=True)
class Site:
    """What one site offers, the best-scored question first.

    Attributes:
        name: such as `cooking`.
        demonstrations: the usable ones.
    """

    name: str
    demonstrations: list[Demonstration] = field(default_factory=list)

    @property
    def stem(self) -> bool:
        """Whether the site counts as science or technology."""
        return self.name.split(".")[0] in STEM_SITES


def read_stack_exchange(paths: Sequence[Path], reading: Reading) -> Iterator[Demonstration]:
    """Demonstrations of all sites, sampled; one dump per site.

    Raises:
        InputError: a file holds no posts, is damaged, or two dumps have one site's name.
    """
    sites: dict[str, Site] = {}
    for path in paths:
        name = site_name(path)
        if name in sites:
            fix = "give each site's dump its own name, such as cooking.stackexchange.com.7z"
            raise InputError(f"a second dump of {name!r}", place=str(path), fix=fix)
        sites[name] = read_site(path, name, reading)
    settings = reading.settings
    pools = {s.name: s.demonstrations for s in sites.values() if s.demonstrations}
    stem = {name: found for name, found in pools.items() if sites[name].stem}
    other = {name: found for name, found in pools.items() if not sites[name].stem}
    wanted = settings.n or sum(map(len, pools.values()))
    first = round(wanted * settings.stem_share) if settings.n and stem and other else wanted
    for pool, count in ((stem, first), (other, wanted - first if stem and other else wanted)):
        yield from reading.sample(pool, count, settings.temperature)


def site_name(path: Path) -> str:
    """The site, from the file's name or, for a bare Posts.xml, its folder's.

    >>> site_name(Path("cooking.stackexchange.com.7z")), site_name(Path("d/askubuntu/Posts.xml"))
    ('cooking', 'askubuntu')
    """
    name = re.sub(r"\.(7z|xml|gz|zst|bz2|xz)\b", "", path.name)
    if name.lower() == "posts":
        name = path.resolve().parent.name
    found = _SITE.match(name)
    return found["site"] if found else name


def read_site(path: Path, name: str, reading: Reading) -> Site:
    """The usable questions of one dump, the best-scored first.

    Raises:
        InputError: the file holds no posts or is damaged.
    """
    with _posts(path) as file:
        best = _best_answers(file, path, reading)
        found = _questions(file, path, best, reading)
    site = Site(name)
    body_first = reading.random.random(len(found))
    for (score, number, question), chance in zip(found, body_first, strict=True):
        use_body = reading.settings.prompt == "body" or (
            reading.settings.prompt == "random" and chance < 0.5
        )
        prompt = (to_markdown(question.body) if use_body else "") or question.title
        messages = (Message("user", prompt), Message("assistant", question.answer))
        site.demonstrations.append(
            Demonstration(
                f"{name}/{number}",
                messages,
                source=f"stackexchange/{name}",
                license=question.license,
                topic=name,
                score=float(score),
            )
        )
    return site


@contextmanager
def _posts(path: Path) -> Iterator[Path]:
    """A file with the posts, unpacked when the dump is a 7z archive."""
    if is_seven_zip(path):
        with extracted(path, "Posts.xml") as file:
            yield file
    else:
        yield path


def _stream(file: Path, path: Path, reading: Reading) -> Iterator[Post]:
    with open_stream(file) as stream:
        yield from rows(stream, str(path), reading)


def _best_answers(file: Path, path: Path, reading: Reading) -> dict[int, _Best]:
    """Question → its best-scored answer of at least `min_score`, with what is wrong with it."""
    best: dict[int, _Best] = {}
    posts = 0
    for post in reading.salvaged(_stream(file, path, reading)):
        posts += 1
        if post.get("PostTypeId") != "2":
            continue
        reading.read += 1
        score, number, parent = (_number(post.get(k)) for k in ("Score", "Id", "ParentId"))
        if score is None or number is None or parent is None:
            reading.lost.add(BROKEN_ROW, f"{path}, answer {post.get('Id', '?')}")
        elif score < reading.settings.min_score:
            reading.removed.add(LOW_SCORE, f"{path}, answer {number}")
        elif parent in best and best[parent].score >= score:
            reading.removed.add(NOT_BEST, f"{path}, answer {number}")
        else:
            if parent in best:
                reading.removed.add(NOT_BEST, f"{path}, answer {best[parent].id}")
            best[parent] = _Best(score, number, _fault(post.get("Body", ""), reading))
    if not posts:
        lost = sum(reading.lost.counts.values())
        fix = "give the site's Posts.xml or its .7z dump"
        raise InputError(f"holds no readable posts ({lost:,} broken)", place=str(path), fix=fix)
    return best


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"-?\d{1,18}", text) else None


def _fault(body: str, reading: Reading) -> str:
    """Why an answer is not used, "" when it is."""
    settings = reading.settings
    short = length_fault(body, settings.min_chars, len(body))
    if short:  # the text is never longer than its HTML
        return short
    text = to_markdown(body)
    fault = length_fault(text, settings.min_chars, settings.max_chars)
    if not fault and not settings.first_person and first_person(text):
        fault = FIRST_PERSON
    if not fault and not settings.references and refers(text):
        fault = REFERENCE
    return fault


def _questions(
    file: Path, path: Path, best: dict[int, _Best], reading: Reading
) -> list[tuple[int, int, _Question]]:
    """Score, id and texts of the best-scored usable questions with their answers."""
    wanted: dict[int, int] = {}
    for parent, answer in best.items():
        if answer.fault:
            reading.removed.add(answer.fault, f"{path}, answer {answer.id}")
        else:
            wanted[answer.id] = parent
    held: dict[int, _Question] = {}
    heap: list[tuple[int, int]] = []
    quiet = Reading(reading.settings)  # the first pass has counted broken rows
    for post in quiet.salvaged(_stream(file, path, quiet)):
        number = _number(post.get("Id"))
        if number is None:
            continue
        if post.get("PostTypeId") == "1" and number in best and not best[number].fault:
            _hold(post, number, held, heap, path, reading)
        elif number in wanted and wanted[number] in held:
            held[wanted[number]].answer = to_markdown(post.get("Body", ""))
    found = []
    for score, negative in sorted(heap, reverse=True):
        if held[-negative].answer:
            found.append((score, -negative, held[-negative]))
        else:
            reading.removed.add(ORPHAN, f"{path}, question {-negative}")
    return found


def _hold(
    post: Post,
    number: int,
    held: dict[int, _Question],
    heap: list[tuple[int, int]],
    path: Path,
    reading: Reading,
) -> None:
    """Keep a question while it is among the best-scored `per_site`."""
    title = post.get("Title", "").strip()
    if not stands_alone(title):
        reading.removed.add(NOT_ALONE, f"{path}, question {number}")
        return
    held[number] = _Question(title, post.get("Body", ""), post.get("ContentLicense") or LICENSE)
    heapq.heappush(heap, (_number(post.get("Score")) or 0, -number))
    if len(heap) > reading.settings.per_site:
        _, out = heapq.heappop(heap)
        del held[-out]
        reading.removed.add(CROWDED, f"{path}, question {-out}")
