"""The voting page as one ASGI application.

Knows nothing of the command line and of servers.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from fastapi import FastAPI

from litee.serve.campaign import Campaign
from litee.serve.hardening import Hardened, Rate
from litee.serve.links import Links
from litee.serve.live import LiveRoutes, Systems
from litee.serve.owner import OwnerRoutes
from litee.serve.page import Page
from litee.serve.vote_settings import LOCAL_HOSTS
from litee.serve.voting import VoterRoutes


def voting_routes(
    campaign: Campaign, links: Links, rate: Rate | None = None, systems: Systems | None = None
) -> FastAPI:
    """The routes without the protection around them, e.g. for their OpenAPI document."""
    app = FastAPI(title="litee vote", docs_url=None, redoc_url=None, openapi_url=None)
    page = Page(campaign, links, rate or Rate(), live=systems is not None)
    page.install(app)
    app.include_router(VoterRoutes(page).router)
    app.include_router(OwnerRoutes(page).router)
    if systems is not None:
        app.include_router(LiveRoutes(page, systems).router)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether the page answers."""
        return {"status": "ok"}

    return app


def voting_app(
    campaign: Campaign, links: Links, rate: Rate | None = None, systems: Systems | None = None
) -> Hardened:
    """The voting page of a campaign.

    Args:
        campaign: what is voted on.
        links: of people and owner.
        rate: of requests per session.
        systems: that answer people's own questions, if any.
    """
    settings = campaign.settings
    return Hardened(
        voting_routes(campaign, links, rate, systems),
        hosts=known_hosts(settings.host, settings.public_url),
        large={"/owner/import": settings.upload_mb * 1_000_000 + 10_000},
    )


def known_hosts(host: str, public_url: str) -> frozenset[str]:
    """Names in the Host header that are served; empty for any, when all addresses are listened on.

    >>> "evil.example" in known_hosts("127.0.0.1", ""), known_hosts("0.0.0.0", "")
    (False, frozenset())
    """
    public = urlsplit(public_url).hostname if public_url else None
    if host in {"0.0.0.0", "::"} and not public:
        return frozenset()
    return frozenset({*LOCAL_HOSTS, host.lower(), *([public.lower()] if public else [])})
