"""A PostgreSQL cluster of its own, on a free loopback port, for as long as a block runs.

It never touches a server that is there already. As root it runs under the user `postgres`.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WHY_NOT = "PostgreSQL is not installed (Debian: apt-get install postgresql)"


def find_binaries() -> Path | None:
    """The folder with initdb and pg_ctl, of the newest version; None when there is none."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((f for f in folders if (f / "initdb").exists() and (f / "pg_ctl").exists()), None)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _user() -> str | None:
    """Whom to run as, None for ourselves."""
    if os.getuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@contextmanager
def cluster() -> Iterator[str]:
    """Start a cluster; yields the URL of an empty database in it."""
    binaries, user = find_binaries(), _user()
    if binaries is None:
        raise RuntimeError(WHY_NOT)
    root = Path(tempfile.mkdtemp(prefix="litee-postgres-"))
    if user is not None:
        shutil.chown(root, user)
    prefix = [] if user is None else ["runuser", "-u", user, "--"]

    def run(*command: str) -> None:
        done = subprocess.run(
            [*prefix, *command], cwd=root, capture_output=True, text=True, timeout=120, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]}: {done.stdout}{done.stderr}")

    data, port = root / "data", _free_port()
    options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={root}"
    control = [str(binaries / "pg_ctl"), "-D", str(data), "-w"]
    try:
        run(str(binaries / "initdb"), "-D", str(data), "-U", "litee", "-A", "trust", "-E", "UTF8")
        run(*control, "-l", str(root / "log"), "-o", options, "start")
        try:
            yield f"postgresql://litee@127.0.0.1:{port}/postgres"
        finally:
            run(*control, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(root, ignore_errors=True)
