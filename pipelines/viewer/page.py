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
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .shards import safe_json

VIEWER_NAMES = ("viewer", "compare-")
"""Prefixes of the pages' file names."""
_UNPLACED = '<meta name="codedance-mlflow" content="">'
_FOLDER = files(__name__.rpartition(".")[0]) / "assets"
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
    style, script = _style(), _script()
    policy = (
        f"default-src 'none'; script-src '{_source(script)}' 'strict-dynamic'; "
        f"style-src '{_source(style)}'; img-src data:; base-uri 'none'; "
        "form-action 'none'; require-trusted-types-for 'script'; trusted-types codedance-shards"
    )
    shards = "".join(_data(f"shard-{number}", body) for number, body in enumerate(inline))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        '<meta name="referrer" content="no-referrer">'
        f"{_UNPLACED}"
        f"<title>{escape(title)}</title><style>{style}</style></head>\n<body>"
        '<div id="app"><p class="loading">Reading the trajectories …</p></div>'
        "<noscript>This page shows trajectories by a script; allow it to run.</noscript>\n"
        f"{_data('index', safe_json(index))}\n{shards}\n<script>{script}</script></body></html>\n"
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


def _data(name: str, body: str) -> str:
    return f'<script type="application/json" id="{name}">{body}</script>'


def _style() -> str:
    return _FOLDER.joinpath("viewer.css").read_text(encoding="utf-8")


def _script() -> str:
    parts = [_FOLDER.joinpath(name).read_text(encoding="utf-8") for name in SCRIPTS]
    return '"use strict";\n(() => {\n' + "\n".join(parts) + "})();\n"


def _source(text: str) -> str:
    """Return the hash source of a text for the Content-Security-Policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
