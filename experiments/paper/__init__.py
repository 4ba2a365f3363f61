"""Tests of the paper's findings: a protocol fixed beforehand, its runs, their verdicts."""

from pathlib import Path

RESULTS_PAGE = Path("claims/results.md")
"""Default path of the results page in ``CODEDANCE_DIR``."""
