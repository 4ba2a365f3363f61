"""The paper's findings, put to the test: a protocol fixed beforehand, its runs, their verdicts."""

from pathlib import Path

RESULTS_PAGE = Path("claims/results.md")
"""Where in ``CODEDANCE_DIR`` the page is written unless the user names another place."""
