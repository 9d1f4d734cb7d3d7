"""What the routes of the voting page share: sessions, templates, refusals, static files.

A session is the token of a link, kept in a cookie that scripts cannot read. Knows nothing of what
is voted on.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from jinja2 import Environment, PackageLoader, select_autoescape
from starlette.exceptions import HTTPException

from litee.errors import EXIT_RESOURCE, LiteeError
from litee.serve.ballots import Person
from litee.serve.campaign import Campaign
from litee.serve.hardening import Rate
from litee.serve.links import Links

_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_YEAR = 365 * 24 * 3600


class RefusedError(Exception):
    """A request that is answered with a message instead.

    Args:
        status: of the answer.
        problem: for the person.
        fix: what to do about it.
    """

    def __init__(self, status: int, problem: str, fix: str = "") -> None:
        self.status, self.problem, self.fix = status, problem, fix
        super().__init__(problem)


@dataclass(frozen=True, slots=True)
class Session:
    """Who is asking, proved by the link's token.

    Attributes:
        token: never shown or logged.
        person: None for the owner.
    """

    token: str
    person: Person | None

    def __repr__(self) -> str:
        return f"Session({'owner' if self.person is None else self.person.number})"


class Page:
    """Templates, sessions and static files of one campaign.

    Args:
        campaign: what is voted on.
        links: to check tokens.
        rate: of requests per session.
        live: whether people may ask questions of their own.
    """

    def __init__(self, campaign: Campaign, links: Links, rate: Rate, *, live: bool = False) -> None:
        self.campaign, self.links, self.rate, self.live = campaign, links, rate, live
        self.settings = campaign.settings
        self.static = _static_files()
        self.version = hashlib.sha256(b"".join(map(bytes, self.static.values()))).hexdigest()[:8]
        self._templates = Environment(
            loader=PackageLoader("litee.serve"),
            autoescape=select_autoescape(["html"]),
            trim_blocks=True,
            lstrip_blocks=True,
        )

    # -- sessions --------------------------------------------------------------------------------

    def cookie(self, *, owner: bool) -> str:
        """Name of the cookie; campaigns on one host have different ones."""
        return f"litee_{'owner' if owner else 'voter'}_{self.links.campaign}"

    def person_of(self, token: str) -> Session | None:
        """The session that a token proves, None when it proves none."""
        claim = self.links.claim(token)
        if claim is None:
            return None
        person = None if claim.owner else self.campaign.desk.people.get(claim.person)
        if not claim.owner and person is None:
            return None
        return Session(token, person) if self.links.proves(token, person) else None

    def session(self, request: Request, *, owner: bool) -> Session:
        """The request's session.

        Raises:
            RefusedError: there is none, it is not of this kind, or it asks too often.
        """
        found = self.person_of(request.cookies.get(self.cookie(owner=owner), ""))
        if found is None or (found.person is None) != owner:
            fix = "Open the link you were given; it belongs to one person."
            if owner:
                fix = "Open the owner's link that `litee vote` printed."
            raise RefusedError(401, "This page opens by a personal link", fix)
        if not self.rate.allows(found.token):
            raise RefusedError(429, "That was too fast", "Wait a moment and go on.")
        return found

    def check_form(self, request: Request, session: Session, given: str) -> None:
        """Refuse a change that did not come from a page of this session.

        Raises:
            RefusedError: the form token or the origin does not fit.
        """
        origin = request.headers.get("origin")
        allowed = {request.headers.get("host"), urlsplit(self.settings.public_url).netloc or None}
        foreign = origin is not None and _netloc(origin) not in allowed
        if foreign or not self.links.form_fits(session.token, given):
            fix = "Reload the page and try again; your link still works."
            raise RefusedError(403, "This form is not from your page", fix)

    def log_in(self, token: str, *, owner: bool, to: str) -> Response:
        """Turn a link into a cookie, so that the token leaves the address bar.

        Raises:
            RefusedError: the link is wrong or was renewed.
        """
        found = self.person_of(token)
        if found is None or (found.person is None) != owner:
            fix = "Check that it was copied whole, or ask for a new one."
            raise RefusedError(404, "This link does not work", fix)
        answer = RedirectResponse(to, 303)
        answer.set_cookie(
            self.cookie(owner=owner),
            token,
            max_age=_YEAR,
            httponly=True,
            samesite="lax",
            secure=self.settings.public_url.startswith("https://"),
        )
        return answer

    # -- pages -----------------------------------------------------------------------------------

    def render(self, template: str, **values: object) -> str:
        """A template with what every page needs."""
        shared = {
            "heading": self.settings.title,
            "campaign": self.links.campaign,
            "version": self.version,
            "mode": self.settings.mode,
            "live": self.live,
        }
        return self._templates.get_template(template).render(**shared, **values)

    def html(self, template: str, code: int = 200, **values: object) -> HTMLResponse:
        """A page."""
        return HTMLResponse(self.render(template, **values), code)

    def refusal(self, request: Request, status: int, problem: str, fix: str = "") -> Response:
        """A message, as JSON for the script and as a page for people."""
        if request.url.path.startswith("/api/"):
            return JSONResponse({"problem": problem, "fix": fix}, status)
        return self.html("message.html", status, problem=problem, fix=fix, link="")

    # -- application -----------------------------------------------------------------------------

    def install(self, app: FastAPI) -> None:
        """Static files and what errors look like."""
        app.add_api_route("/static/{name}", self.static_file, methods=["GET"])
        app.add_exception_handler(RefusedError, self._refused)
        app.add_exception_handler(RequestValidationError, self._invalid)
        app.add_exception_handler(HTTPException, self._http)
        app.add_exception_handler(LiteeError, self._litee)

    async def static_file(self, name: str) -> Response:
        """A file of the package, by its exact name; no path leads to the disk."""
        data = self.static.get(name)
        if data is None:
            raise RefusedError(404, "There is no such file")
        kind = _TYPES[name.rsplit(".", 1)[1]]
        return Response(data, media_type=kind, headers={"cache-control": "max-age=86400"})

    async def _refused(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, RefusedError)
        return self.refusal(request, error.status, error.problem, error.fix)

    async def _invalid(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = ".".join(str(part)[:40] for part in first["loc"])
        return self.refusal(request, 422, f"{where}: {first['msg'][:200]}")

    async def _http(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        problem = "There is no such page" if error.status_code == 404 else str(error.detail)[:200]
        answer = self.refusal(request, error.status_code, problem)
        for name, value in (error.headers or {}).items():
            answer.headers[name] = value
        return answer

    async def _litee(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, LiteeError)
        status = 503 if error.exit_code == EXIT_RESOURCE else 400
        return self.refusal(request, status, error.problem, error.fix)


def _netloc(origin: str) -> str:
    """Host and port of an origin; "" (which is never allowed) when it has none."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _static_files() -> dict[str, bytes]:
    folder = resources.files("litee.serve") / "static"
    names = (entry.name for entry in folder.iterdir())
    return {
        name: (folder / name).read_bytes()
        for name in sorted(names)
        if name.rsplit(".", 1)[-1] in _TYPES
    }
