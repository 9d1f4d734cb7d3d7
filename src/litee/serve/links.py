"""Links with tokens for people and owner, and the key behind them.

Tokens are computed from one secret key, which lies in a file of its own that only its owner may
read, never in the database: a database that is passed on as training data opens no page. Holding
the file also makes sure that one process serves a campaign. Knows nothing of HTTP.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import hmac
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from litee.errors import InputError, ResourceError
from litee.serve.ballots import Person

_TOKEN = re.compile(r"^(?:(o)|p(\d{1,9}))-([A-Za-z0-9_-]{32})$")
_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Claim:
    """Who a token claims to be.

    Attributes:
        owner: the campaign's owner.
        person: number of a person, −1 for the owner.
    """

    owner: bool
    person: int = -1


class Links:
    """Makes and checks tokens.

    Args:
        key: at least 16 random bytes.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) < 16:
            raise ValueError("the key is too short")
        self.__key = key

    def __repr__(self) -> str:
        return "Links(…)"

    def _mac(self, text: str) -> str:
        digest = hmac.new(self.__key, text.encode(), hashlib.sha256).digest()[:24]
        return base64.urlsafe_b64encode(digest).decode()

    @property
    def campaign(self) -> str:
        """A short public name, so that cookies of campaigns on one host do not collide."""
        return hashlib.sha256(self._mac("campaign").encode()).hexdigest()[:8]

    def owner_token(self) -> str:
        """The owner's token: 192 bits that cannot be guessed."""
        return "o-" + self._mac("owner")

    def person_token(self, person: Person) -> str:
        """A person's token; renewing the link changes it."""
        return f"p{person.number}-" + self._mac(f"person {person.number} {person.link}")

    def claim(self, token: str) -> Claim | None:
        """Who a token claims to be, None when it has no token's form; nothing is proved yet."""
        match = _TOKEN.match(token)
        if match is None:
            return None
        return Claim(True) if match[1] else Claim(False, int(match[2]))

    def proves(self, token: str, person: Person | None) -> bool:
        """Whether a token is the person's, or the owner's for None, in constant time."""
        wanted = self.owner_token() if person is None else self.person_token(person)
        return hmac.compare_digest(wanted.encode(), token.encode())

    def form_token(self, token: str) -> str:
        """What a page sends back with a change, so that other sites cannot send one."""
        return self._mac("form " + token)

    def form_fits(self, token: str, given: str) -> bool:
        """Whether `given` is the form token of a session, in constant time."""
        return hmac.compare_digest(self.form_token(token).encode(), given.encode())


class KeyFile:
    """The file with the key; held for as long as the campaign is served.

    Raises:
        InputError: the file is no key file, or others may read it.
        ResourceError: it cannot be read or written, or another process holds it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle = self._open()
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._handle.close()
            fix = "stop the other `litee vote`, or give this one another --db"
            problem = "another process serves this campaign"
            raise ResourceError(problem, place=str(path), fix=fix) from error

    def links(self) -> Links:
        """Links by the key; a new file gets a new key."""
        self._handle.seek(0)
        text = self._handle.read().strip()
        if not text:
            text = secrets.token_hex(_KEY_BYTES)
            self._handle.write(text + "\n")
            self._handle.flush()
            os.fsync(self._handle.fileno())
        if not re.fullmatch(r"[0-9a-f]{64}", text):
            fix = "name another file with --key, or delete this one: that makes new links"
            raise InputError("the file holds no key", place=str(self.path), fix=fix)
        return Links(bytes.fromhex(text))

    def close(self) -> None:
        """Let another process have it."""
        self._handle.close()

    def _open(self) -> IO[str]:
        try:
            number = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            fix = "name a file that may be written with --key"
            problem = f"cannot keep the key: {error.strerror}"
            raise ResourceError(problem, place=str(self.path), fix=fix) from error
        if os.fstat(number).st_mode & 0o077:
            os.close(number)
            fix = f"chmod 600 {self.path.name}"
            raise InputError("other users may read the key", place=str(self.path), fix=fix)
        return os.fdopen(number, "r+", encoding="ascii", errors="replace")
