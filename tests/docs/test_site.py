"""The site builds without a warning, and its figures match the code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from .parser import leaves

ROOT = Path(__file__).parents[2]
FIGURES = ROOT / "docs" / "figures"
NUMBER = re.compile(r"-?\d+\.\d+")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as ``make docs`` builds it; a warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    return folder


@pytest.mark.slow
def test_every_page_of_the_repository_is_in_the_site(site):
    pages = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")]
    assert [page for page in pages if not (site / page.with_suffix(".html")).is_file()] == []


@pytest.mark.slow
def test_every_page_is_in_the_navigation(site):
    start = (site / "index.html").read_text(encoding="utf-8")
    pages = [path.relative_to(site).as_posix() for path in site.rglob("*.html")]
    lost = [page for page in pages if page != "404.html" and f'href="{page}"' not in start]
    assert lost == []


@pytest.mark.slow
def test_every_command_and_option_is_in_the_reference(site):
    text = (site / "commands.html").read_text(encoding="utf-8")
    for path, command in leaves():
        assert f"codedance {path}" in text
        for parameter in command.params:
            if not getattr(parameter, "hidden", False):
                assert parameter.opts[0] in text


@pytest.mark.slow
def test_docstrings_are_in_the_reference(site):
    text = (site / "reference" / "rewards.html").read_text(encoding="utf-8")
    assert "above 0 to encourage tool calls" in text
    assert "difficulty_factor" in text


@pytest.mark.slow
def test_the_site_loads_nothing_from_other_servers(site):
    for page in site.rglob("*.html"):
        sources = re.findall(
            r'<(?:script|img|link)[^>]+(?:src|href)="(https?:[^"]+)"',
            page.read_text(encoding="utf-8"),
        )
        assert sources == [], page


@pytest.mark.slow
def test_the_figures_match_the_code_that_draws_them(tmp_path):
    script = FIGURES / "draw.py"
    subprocess.run([sys.executable, str(script), str(tmp_path)], cwd=tmp_path, check=True)
    kept = sorted(path.name for path in FIGURES.glob("*.svg"))
    assert kept == sorted(path.name for path in tmp_path.glob("*.svg"))
    for name in kept:
        texts = [(folder / name).read_text(encoding="utf-8") for folder in (FIGURES, tmp_path)]
        first, second = (np.array([float(n) for n in NUMBER.findall(text)]) for text in texts)
        np.testing.assert_allclose(first, second, atol=0.02, err_msg=name)
