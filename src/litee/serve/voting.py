"""The voter's routes: the link, the page, and what the page's script asks for.

Knows nothing of who wrote which answer: it gets sheets without names.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import FormData

from litee.serve.ballots import (
    GRADES,
    MAX_COMMENT,
    ActIn,
    Person,
    Progress,
    Sheet,
    Tray,
)
from litee.serve.live import MAX_PROMPT
from litee.serve.page import Page, RefusedError, Session
from litee.serve.rendering import to_html

#: Sheets kept ready in memory.
SHEETS = 2000

_WORDS = (("left", "A"), ("right", "B"), ("tie", "Tie"), ("both_bad", "Both bad"))


class ActsIn(BaseModel):
    """What the script sends: acts in the order in which they were done."""

    model_config = ConfigDict(extra="forbid")

    acts: Annotated[list[ActIn], Field(max_length=20)]


class AckOut(BaseModel):
    """What became of one act."""

    ballot: str
    revision: int
    status: str


class SheetOut(BaseModel):
    """A ballot to judge, ready to be shown."""

    ballot: str
    revision: int
    html: str


class ProgressOut(BaseModel):
    """How far the person is."""

    done: int
    left: int
    seconds: float | None


class LastOut(BaseModel):
    """The act that an undo takes back."""

    ballot: str
    revision: int


class TrayOut(BaseModel):
    """What the browser needs to go on."""

    acks: list[AckOut]
    sheets: list[SheetOut]
    progress: ProgressOut
    last: LastOut | None


class VoterRoutes:
    """Routes for people who vote.

    Args:
        page: of the campaign.
    """

    def __init__(self, page: Page) -> None:
        self.page, self.campaign = page, page.campaign
        self._sheets: dict[tuple[str, int, str], str] = {}
        self.router = APIRouter()
        add = self.router.add_api_route
        add("/", self.front, methods=["GET"], response_model=None)
        add("/join/{token}", self.join, methods=["GET"], response_model=None)
        add("/vote", self.show, methods=["GET"], response_model=None)
        add("/vote", self.plain, methods=["POST"], response_model=None)
        add("/api/tray", self.tray, methods=["GET"], response_model=TrayOut)
        add("/api/votes", self.votes, methods=["POST"], response_model=TrayOut)

    async def front(self, request: Request) -> Response:
        """To the page of whoever asks."""
        for owner, path in ((False, "/vote"), (True, "/owner")):
            if self.page.person_of(request.cookies.get(self.page.cookie(owner=owner), "")):
                return RedirectResponse(path, 303)
        fix = "Open the link you were given; it belongs to one person."
        return self.page.refusal(request, 401, "This page opens by a personal link", fix)

    async def join(self, token: str) -> Response:
        """A person's link."""
        return self.page.log_in(token, owner=False, to="/vote")

    async def show(self, request: Request, go: str = "") -> Response:
        """The page, with the next pair in it."""
        session = self.page.session(request, owner=False)
        person = _person(session)
        tray = self._out(session, await self.campaign.act(person.number))
        progress = tray.progress
        # inside a script element only `<` could end it
        text = tray.model_dump_json().replace("<", "\\u003c")
        return self.page.html(
            "vote.html",
            name=person.name,
            person=person.number,
            form_token=self.page.links.form_token(session.token),
            sheets=tray.sheets,
            last=tray.last,
            tray_json=text,
            done=progress.done,
            total=max(1, progress.done + progress.left),
            status=_status(progress, live=self.page.live),
            max_prompt=MAX_PROMPT,
            summary=_summary(progress.done),
            welcome=not progress.done and not go and bool(tray.sheets),
        )

    async def plain(self, request: Request) -> Response:
        """A vote from a browser without script: the form, then the next pair."""
        session = self.page.session(request, owner=False)
        try:
            async with request.form(max_files=0, max_fields=200) as form:
                self.page.check_form(request, session, str(form.get("form_token", "")))
                act = ActIn.model_validate(_form_act(form))
        except (ValidationError, ValueError) as error:
            fix = "Go back, choose one of the buttons, and try again."
            raise RefusedError(422, "The vote could not be read", fix) from error
        await self.campaign.act(_person(session).number, [act])
        return RedirectResponse("/vote?go=1", 303)

    async def tray(self, request: Request) -> TrayOut:
        """What is to be judged next; asking again gives the same."""
        session = self.page.session(request, owner=False)
        return self._out(session, await self.campaign.act(_person(session).number))

    async def votes(
        self, request: Request, body: ActsIn, x_litee_form: Annotated[str, Header()] = ""
    ) -> TrayOut:
        """Votes, undos and skips; sending them again changes nothing."""
        session = self.page.session(request, owner=False)
        self.page.check_form(request, session, x_litee_form)
        return self._out(session, await self.campaign.act(_person(session).number, body.acts))

    # -- shapes ----------------------------------------------------------------------------------

    def _out(self, session: Session, tray: Tray) -> TrayOut:
        last = self.campaign.desk.last_act(_person(session).number)
        return TrayOut(
            acks=[AckOut(ballot=a.ballot, revision=a.revision, status=a.status) for a in tray.acks],
            sheets=[
                SheetOut(ballot=s.ballot, revision=s.revision, html=self._sheet(session, s))
                for s in tray.sheets
            ],
            progress=_progress(tray.progress),
            last=None if last is None else LastOut(ballot=last.id, revision=last.revision),
        )

    def _sheet(self, session: Session, sheet: Sheet) -> str:
        """The ballot's HTML; it is asked for again with every vote before it is its turn."""
        key = (sheet.ballot, sheet.revision, session.token)
        found = self._sheets.get(key)
        if found is None:
            found = self._sheets[key] = self._render(session, sheet)
            while len(self._sheets) > SHEETS:
                del self._sheets[next(iter(self._sheets))]
        return found

    def _render(self, session: Session, sheet: Sheet) -> str:
        settings = self.page.settings
        turns = [
            tuple(map(to_html, turn))
            for turn in zip(sheet.prompt, sheet.left, sheet.right, strict=True)
        ]
        return self.page.render(
            "sheet.html",
            sheet=sheet,
            turns=[tuple(map(_Safe, turn)) for turn in turns],
            form_token=self.page.links.form_token(session.token),
            per_turn=settings.per_turn,
            ratings=settings.ratings,
            tags=settings.tags,
            sides=_WORDS,
            grades=GRADES,
            max_comment=MAX_COMMENT,
        )


class _Safe(str):
    """HTML that was cleaned already: templates do not escape it again."""

    __slots__ = ()

    def __html__(self) -> str:
        return self


def _person(session: Session) -> Person:
    assert session.person is not None
    return session.person


def _progress(progress: Progress) -> ProgressOut:
    return ProgressOut(done=progress.done, left=progress.left, seconds=progress.seconds)


def _status(progress: ProgressOut, *, live: bool) -> str:
    """How far the person is; there is no end to questions of one's own.

    >>> three = ProgressOut(done=3, left=0, seconds=None)
    >>> _status(three, live=False), _status(three, live=True)
    ('3 done · 0 to go', '3 done')
    """
    done = f"{progress.done} done"
    return done if live and not progress.left else f"{done} · {progress.left} to go"


def _summary(done: int) -> str:
    """What the person has judged so far; nothing before the first pair.

    >>> _summary(0), _summary(1)
    ('', 'You judged 1 pair.')
    """
    return f"You judged {done} pair{'s' * (done != 1)}." if done else ""


def _form_act(form: FormData) -> dict[str, object]:
    """The fields of the plain form as an act.

    Raises:
        ValueError: a number cannot be read.
    """

    def text(name: str) -> str:
        value = form.get(name, "")
        return value if isinstance(value, str) else ""

    act: dict[str, object] = {
        "ballot": text("ballot"),
        "revision": int(text("revision")[:6]),
        "act": text("act") or "vote",
    }
    if act["act"] != "vote":
        return act
    for side in ("left", "right"):
        notes: dict[str, object] = {}
        if text(f"{side}-stars"):
            notes["stars"] = int(text(f"{side}-stars")[:2])
        if text(f"{side}-grade"):
            notes["grade"] = text(f"{side}-grade")
        tags = [str(tag) for tag in form.getlist(f"{side}-tags")]
        act[side] = {**notes, "tags": tags} if tags else notes
    turns = [text(f"turn-{k}") or None for k in range(100)]
    while turns and turns[-1] is None:
        turns.pop()
    act.update(choice=text("choice") or None, comment=text("comment"), turns=turns)
    return act
