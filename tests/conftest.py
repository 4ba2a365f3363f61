"""Hooks and fixtures of all tests; in CI, only listed reasons for a skip are allowed."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

IS_STRICT = os.environ.get("CODEDANCE_STRICT_SKIPS") == "1"
HANDLED = (signal.SIGINT, signal.SIGTERM)
ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))  # benchmarks and experiments are in the repository, not in the wheel
ALLOWED = Path(__file__).with_name("allowed_skips.txt")
LONG = Path(__file__).with_name("long_tests.txt")


@pytest.hookimpl(tryfirst=True)  # before the selection by markers
def pytest_collection_modifyitems(items):
    """Mark the tests that long_tests.txt lists."""
    entries = set(_lines(LONG))
    for item in items:
        if {item.nodeid, item.nodeid.partition("[")[0]} & entries:
            item.add_marker(pytest.mark.long)


@pytest.fixture(autouse=True)
def no_variable_left():
    """Restore variables that a command set for its process, such as MLflow's address."""
    kept = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(kept)


@pytest.fixture(autouse=True)
def no_handler_left():
    """Fail a test that leaves a signal handler, which forked processes of later ones inherit."""
    before = {number: signal.getsignal(number) for number in HANDLED}
    yield
    left = [number.name for number in HANDLED if signal.getsignal(number) is not before[number]]
    for number, handler in before.items():
        signal.signal(number, handler)
    assert not left, f"handlers of {left} were not restored"


def pytest_terminal_summary(terminalreporter, config):
    """List the skips that are not allowed; CI fails on them (see pytest_sessionfinish)."""
    for reason in _unlisted(terminalreporter) if IS_STRICT else ():
        terminalreporter.write_line(f"SKIP NOT ALLOWED: {reason}", red=True)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session, exitstatus):
    """Fail the run if a test was skipped for a reason that is not in allowed_skips.txt."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if IS_STRICT and exitstatus == 0 and reporter and _unlisted(reporter):  # none in a worker
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _unlisted(reporter):
    allowed = _lines(ALLOWED)
    reasons = {report.longrepr[2] for report in reporter.stats.get("skipped", [])}
    return sorted(r for r in reasons if not any(r.endswith(known) for known in allowed))


def _lines(path):
    """Return the lines of a list, without comments and empty ones."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]
