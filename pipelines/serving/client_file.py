"""``prefect.toml`` of ``codedance flows serve``, which points ``prefect`` to our server.

Prefect reads the file in the current folder. Ours is marked in its first line and removed when the
server ends, or by the next command if the server was killed; any other file is left unchanged.
"""

from __future__ import annotations

import contextlib
import os
import tomllib
from collections.abc import Generator
from pathlib import Path
from urllib.parse import urlsplit

from ..runs.processes import is_free

FILE = Path("prefect.toml")
HEAD = "# Written by `codedance flows serve`, removed when it ends.\n"


@contextlib.contextmanager
def client_file(url: str) -> Generator[bool]:
    """Point ``prefect`` commands in this folder to ``url`` within the context.

    Yields:
        Whether the file was written; False if the folder has another such file.
    """
    is_written = not FILE.exists() or is_ours()
    if is_written:
        FILE.write_text(f'{HEAD}[api]\nurl = "{url}"\n', encoding="utf-8")
    try:
        yield is_written
    finally:
        if is_written and is_ours():
            FILE.unlink()


def forget_dead_server() -> None:
    """Remove our file if its server is gone; call it before importing Prefect."""
    if "PREFECT_API_URL" in os.environ or not is_ours():
        return
    url = tomllib.loads(FILE.read_text(encoding="utf-8"))["api"]["url"]
    if is_free(urlsplit(url).port or 80):
        FILE.unlink()


def is_ours() -> bool:
    """Whether the file was written by us."""
    return FILE.is_file() and FILE.read_text(encoding="utf-8").startswith(HEAD)
