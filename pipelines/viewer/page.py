"""The page: style, script and data in one file, protected by a Content-Security-Policy.

Only our own script, identified by its hash, may run, and only it may load the shards beside the
page. Text by a model is JSON in blocks that no browser executes, and the script renders it as text,
never as markup.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..charts.templates import render
from .shards import safe_json

VIEWER_NAMES = ("viewer", "compare-")
"""Prefixes of the pages' file names."""
_UNPLACED = '<meta name="codedance-mlflow" content="">'
_FOLDER = Path(__file__).parent / "assets"
SCRIPTS = (
    "dom.js",
    "data.js",
    "filters.js",
    "address.js",
    "python.js",
    "list.js",
    "tokens.js",
    "picture.js",
    "episode.js",
    "together.js",
    "main.js",
)


def render_viewer(title: str, index: dict[str, Any], inline: Sequence[str]) -> str:
    """Render the page."""
    style, script = _read("viewer.css"), _script()
    return render(
        _FOLDER,
        "viewer.html.j2",
        title=title,
        style=style,
        style_source=_source(style),
        script=script,
        script_source=_source(script),
        unplaced=_UNPLACED,
        index=safe_json(index),
        shards=inline,
    )


def place_viewer(page: Path, *, run_id: str, folder: str, prefix: str = "") -> None:
    """Record in a page the MLflow run that it belongs to, so that it finds its shards there.

    MLflow shows the page in a frame without a URL to which the shards' paths could be relative.

    Args:
        page: Path of the page, which is changed in place.
        run_id: Id of the MLflow run.
        folder: Artifact folder of the page in the run.
        prefix: Prefix of the server's paths, if any.
    """
    below = quote(f"{folder}/" if folder else "", safe="")
    address = f"{prefix}/get-artifact?run_uuid={quote(run_id, safe='')}&path={below}"
    placed = _UNPLACED.replace('content=""', f'content="{escape(address)}"')
    text = page.read_text(encoding="utf-8")
    page.write_text(text.replace(_UNPLACED, placed, 1), encoding="utf-8")


def _script() -> str:
    return '"use strict";\n(() => {\n' + "\n".join(map(_read, SCRIPTS)) + "})();\n"


def _read(name: str) -> str:
    return _FOLDER.joinpath(name).read_text(encoding="utf-8")


def _source(text: str) -> str:
    """Return the hash source of a text for the Content-Security-Policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
