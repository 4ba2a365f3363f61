"""A private PostgreSQL server in its own folder, for benchmarks and tests.

It listens only on a socket in that folder, requires a password, and is removed when it is closed.
PostgreSQL refuses to run as root: for root it runs as the user ``postgres``, else as ``nobody``.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from codedance.pipelines.store.connection.address import DRIVER
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

USER = "codedance"
CARELESS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""Settings for disposable data."""

_PLACES = ("/usr/lib/postgresql", "/usr/pgsql", "/opt/homebrew/opt/postgresql")


class PostgresMissing(RuntimeError):  # noqa: N818 - a missing program is no error of ours
    """PostgreSQL's programs are not on this machine."""


def find_programs() -> Path:
    """Return the folder of initdb and pg_ctl.

    Raises:
        PostgresMissing: There is no such folder.
    """
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    for place in _PLACES:
        parent = Path(place).parent
        folders += sorted(parent.glob(f"{Path(place).name}*/**/bin"), reverse=True)
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "pg_ctl").exists():
            return folder
    raise PostgresMissing("PostgreSQL is not on this machine: apt-get install postgresql")


class PostgresServer:
    """A running server; close it, or use it as a context manager.

    Args:
        settings: Settings as in postgresql.conf.

    Raises:
        PostgresMissing: PostgreSQL's programs are not on this machine.
    """

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        self._programs = find_programs()
        self._user = _server_user()
        self.folder = Path(tempfile.mkdtemp(prefix="codedance-postgres-"))
        self._data = self.folder / "data"
        self._password = secrets.token_urlsafe(12)
        self._settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.folder),
            **(settings or {}),
        }
        try:
            self._make()
            self.start()
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = " ".join(f"-c {name}={value}" for name, value in self._settings.items())
        log = str(self.folder / "log")
        self._control("start", "--wait", "--log", log, "--options", options)

    def stop(self, mode: str = "fast") -> None:
        """Stop the server: ``fast`` aborts transactions, ``immediate`` is like a crash."""
        self._control("stop", "--wait", "--mode", mode)

    def close(self) -> None:
        """Stop the server and remove its data."""
        with contextlib.suppress(subprocess.CalledProcessError):  # stopped already
            self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database: str = "postgres", **changes: str) -> str:
        """Return the address of one of its databases; ``changes`` replace parts of it."""
        url = URL.create(
            DRIVER,
            username=changes.get("username", USER),
            password=changes.get("password", self._password),
            database=database,
            query={"host": str(self.folder)},
        )
        return url.render_as_string(hide_password=False)

    def make_database(self, name: str, *options: str) -> str:
        """Create a database and return its address; options are such as ``TEMPLATE other``."""
        self._execute(f'CREATE DATABASE "{name}" {" ".join(options)}')
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Remove a database, even while clients are connected."""
        self._execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def _execute(self, statement: str) -> None:
        engine = create_engine(self.url(), isolation_level="AUTOCOMMIT", poolclass=NullPool)
        with engine.connect() as connection:
            connection.execute(text(statement))

    def _make(self) -> None:
        secret = self.folder / "password"
        secret.write_text(self._password, encoding="utf-8")
        if self._user is not None:
            for path in (self.folder, secret):
                os.chown(path, self._user.pw_uid, self._user.pw_gid)
        self._run(
            "initdb",
            *("--pgdata", str(self._data), "--username", USER, "--pwfile", str(secret)),
            *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync"),
        )
        secret.unlink()

    def _control(self, *arguments: str) -> None:
        self._run("pg_ctl", "--pgdata", str(self._data), *arguments)

    def _run(self, program: str, *arguments: str) -> None:
        own = self._user
        with (self.folder / f"{program}.out").open("wb") as out:
            subprocess.run(
                [str(self._programs / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                check=True,
                user=None if own is None else own.pw_uid,
                group=None if own is None else own.pw_gid,
            )


def _server_user() -> pwd.struct_passwd | None:
    """Return the user that the server runs as; None for the current user."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise PostgresMissing("PostgreSQL refuses to run as root, and there is no other user here")
