"""The paper's findings, put to the test: a protocol fixed beforehand, its runs, their verdicts."""

from pathlib import Path

RESULTS_PAGE = Path("docs/results.md")
"""Where the packaged protocol's page is written."""
