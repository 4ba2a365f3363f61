"""Links between the Markdown files of the repository have existing targets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", "docs/**/*.md", "experiments/*.md")
    for path in ROOT.glob(pattern)
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCED = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def prose_of(path):
    return FENCED.sub("", path.read_text(encoding="utf-8"))


def anchors_of(path):
    """Return the anchors of a page's headings, as GitHub and mkdocs derive them."""
    texts = (re.sub(r"[^\w\s-]", "", text).strip() for text in HEADING.findall(prose_of(path)))
    return {re.sub(r"\s+", "-", text.lower()) for text in texts}


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_has_an_existing_file_and_heading(page):
    lost = []
    for link in LINK.findall(prose_of(ROOT / page)):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            lost.append(link)
    assert lost == []


def test_the_readme_lists_what_was_not_run_and_shows_both_figures():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for words in ("## What has not been run", "docs/figures/viewer.png", "architecture.svg"):
        assert words in text
    assert (ROOT / "docs/figures/viewer.png").stat().st_size < 250_000
