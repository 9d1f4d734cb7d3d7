"""The owner's routes: figures that update themselves, people and their links, import and export.

Knows nothing of how figures are computed.
"""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import Field
from starlette.datastructures import UploadFile

from litee.errors import InputError
from litee.records import Score
from litee.serve.ballots import Person
from litee.serve.page import Page, RefusedError
from litee.serve.snapshot import last_act, take_snapshot
from litee.serve.standing import Standing, standing
from litee.serve.transfer import FORMATS, export, import_file

#: Figures are not computed anew more often than this, in seconds.
FRESH = 3.0

Number = Annotated[int, Field(ge=0, le=1_000_000)]


class OwnerRoutes:
    """Routes for whoever runs the campaign.

    Args:
        page: of the campaign.
    """

    def __init__(self, page: Page) -> None:
        self.page, self.campaign = page, page.campaign
        self._standing: Standing | None = None
        self._state: object = None
        self._lock = asyncio.Lock()
        self.router = APIRouter()
        add = self.router.add_api_route
        add("/owner/join/{token}", self.join, methods=["GET"], response_model=None)
        add("/owner", self.show, methods=["GET"], response_model=None)
        add("/owner/panel", self.panel, methods=["GET"], response_model=None)
        add("/owner/people", self.add_people, methods=["POST"], response_model=None)
        add("/owner/people/{number}", self.change, methods=["POST"], response_model=None)
        add("/owner/import", self.take_in, methods=["POST"], response_model=None)
        add("/owner/export/{name}", self.take_away, methods=["GET"], response_model=None)

    async def join(self, token: str) -> Response:
        """The owner's link."""
        return self.page.log_in(token, owner=True, to="/owner")

    async def show(self, request: Request, said: str = "") -> Response:
        """The page."""
        session = self.page.session(request, owner=True)
        return self.page.html(
            "owner.html",
            panel=await self._panel(),
            people=self._people(request),
            formats=FORMATS,
            form_token=self.page.links.form_token(session.token),
            said=said[:200],
            upload_mb=self.page.settings.upload_mb,
            votes=self._standing.votes if self._standing else 0,
        )

    async def panel(self, request: Request) -> Response:
        """The figures alone, for the page's script."""
        self.page.session(request, owner=True)
        return Response(await self._panel(), media_type="text/html")

    async def add_people(self, request: Request) -> Response:
        """Make links for new people, one name per line or comma."""
        session = self.page.session(request, owner=True)
        async with request.form(max_files=0, max_fields=10) as form:
            self.page.check_form(request, session, str(form.get("form_token", "")))
            names = str(form.get("names", "")).replace(",", "\n").splitlines()
        wanted = [name for name in names if name.strip()][:500]
        if not wanted:
            raise InputError("no name was given", fix="write one name per line")
        for name in wanted:
            await asyncio.to_thread(self.campaign.person, name)
        return RedirectResponse("/owner#people", 303)

    async def change(self, request: Request, number: Number) -> Response:
        """Exclude a person, take them in again, or renew their link."""
        session = self.page.session(request, owner=True)
        async with request.form(max_files=0, max_fields=10) as form:
            self.page.check_form(request, session, str(form.get("form_token", "")))
            action = str(form.get("action", ""))
        changes = {
            "exclude": {"excluded": True},
            "include": {"excluded": False},
            "renew": {"new_link": True},
        }.get(action)
        if changes is None:
            raise RefusedError(422, "There is no such action")
        await asyncio.to_thread(lambda: self.campaign.change_person(number, **changes))
        return RedirectResponse("/owner#people", 303)

    async def take_in(self, request: Request) -> Response:
        """Add a file's pairs and votes."""
        session = self.page.session(request, owner=True)
        limit = self.page.settings.upload_mb * 1_000_000
        async with request.form(max_files=1, max_fields=5, max_part_size=limit) as form:
            self.page.check_form(request, session, str(form.get("form_token", "")))
            file = form.get("file")
            if not isinstance(file, UploadFile) or not file.filename:
                raise RefusedError(422, "No file was chosen", "Choose a file, then send it.")
            name, data = file.filename, await file.read()
        found = await asyncio.to_thread(import_file, self.campaign, name, data)
        said = f"Added {found.pairs} pairs and {found.votes} votes"
        if found.known:
            said += f"; {found.known} votes were here already"
        return RedirectResponse(f"/owner?said={said.replace(' ', '+')}", 303)

    async def take_away(self, request: Request, name: str) -> Response:
        """Download the votes."""
        self.page.session(request, owner=True)
        file, data = await asyncio.to_thread(export, self.campaign, name)
        await asyncio.to_thread(self.campaign.note, "owner", "exported", {"format": name})
        disposition = f'attachment; filename="{file}"'
        return Response(
            data,
            media_type="application/octet-stream",
            headers={"content-disposition": disposition},
        )

    # -- figures ---------------------------------------------------------------------------------

    async def _panel(self) -> str:
        async with self._lock:
            await self._refresh()
        assert self._standing is not None
        return self.page.render("owner_panel.html", s=self._standing, cell=_cell, bars=_bars)

    async def _refresh(self) -> None:
        """Compute the figures anew when something changed and they are not quite fresh."""
        if self._standing is not None and time.time() - self._standing.at < FRESH:
            return
        people = tuple(self.campaign.desk.people.values())
        questions = len(self.campaign.desk.questions)
        state = (
            await asyncio.to_thread(last_act, self.campaign.reader),
            people,
            questions,
            int(time.time() // 60),
        )
        if self._standing is None or state != self._state:
            self._standing = await asyncio.to_thread(self._compute)
            self._state = state

    def _compute(self) -> Standing:
        snapshot = take_snapshot(self.campaign.reader)
        return standing(snapshot, people_per_pair=self.page.settings.people_per_pair)

    def _people(self, request: Request) -> list[tuple[Person, str]]:
        """People with their links."""
        public = self.page.settings.public_url.rstrip("/")
        base = public or f"{request.url.scheme}://{request.url.netloc}"
        token = self.page.links.person_token
        return [
            (person, f"{base}/join/{token(person)}")
            for person in self.campaign.desk.people.values()
        ]


def _cell(score: Score, unit: str = " %") -> str:
    """A figure with its interval, or a dash; without a unit as a number with two places.

    >>> _cell(Score(0.5, 0.25, 0.75)), _cell(Score(0.5), ""), _cell(Score(None, reason="none"))
    ('50 % (25–75 %)', '0.50', '–')
    """

    def text(value: float) -> str:
        return f"{100 * value:.0f}" if unit else f"{value:.2f}"

    if score.value is None:
        return "–"
    if score.low is None or score.high is None:
        return text(score.value) + unit
    return f"{text(score.value)}{unit} ({text(score.low)}–{text(score.high)}{unit})"


def _bars(counts: tuple[int, ...]) -> list[tuple[float, float, int]]:
    """Bars of a chart 100 high: left edge, height, count.

    >>> _bars((1, 2))
    [(0.0, 50.0, 1), (4.0, 100.0, 2)]
    """
    top = max(counts) or 1
    return [(4.0 * k, 100 * count / top, count) for k, count in enumerate(counts)]
