"""HTML from templates: every value is escaped, unless it was rendered by a template itself."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

SHARED = Path(__file__).parent / "assets"
"""Folder of what every page may include."""


def render(folder: Path, name: str, **values: object) -> Markup:
    """Render a template of a folder; a name that it uses and that has no value is an error."""
    from markupsafe import Markup

    return Markup(_environment(folder).get_template(name).render(values))


@cache
def _environment(folder: Path) -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader((folder, SHARED)),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
