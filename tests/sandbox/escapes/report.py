"""Runs the suite in every place and writes the table of the docs."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from .attempt import Attempt
from .catalogue import ATTEMPTS
from .container import is_docker_there, judge_in_container
from .judging import Verdict
from .places import PLACES, judge_all, judge_as_nobody

DOCS = Path(__file__).parents[3] / "docs" / "escapes.md"
NO_FILTER = ("--security-opt", "seccomp=unconfined")
"""Docker's own filter off, so that it does not stand in for ours."""

_HEAD = """# Attempts against the sandbox

Written by `make test-escapes`. Each attempt is a program of the kind that a model writes; it prints
a proof when it gets through. It is *held* when there is no proof, nothing on the host has changed
(files, clock, name, limits, callers on its ports), the zygote lives, a sibling session and a fresh
one give right results, and no failure was blamed on the infrastructure. Its *control* is the same
attempt with the named walls taken away, in a disposable container: there it must succeed, which
shows that the wall holds it and not a mistake in the attempt.

79 attempts are numbered as in the list that the suite began with; 80 and above are ours.
"""


def write_report(path: str = str(DOCS)) -> None:
    """Make every attempt in every place and write the table; ends with 1 if any got through."""
    places = {name: _told(name, judge) for name, judge in all_places()}
    controls = judge_controls() if is_docker_there() else []
    text = "\n".join([_HEAD, *_counts(places), "", *_details(controls), ""])
    Path(path).write_text(text, encoding="utf-8")
    bad = [v for verdicts in places.values() for v in verdicts if v.result in ("escaped", "broken")]
    idle = [v for v in controls if v.result != "escaped"]
    for verdict in [*bad, *idle]:
        sys.stdout.write(f"{verdict}\n")
    sys.exit(bool(bad or idle))


def all_places() -> Iterable[tuple[str, Callable[[], list[Verdict]]]]:
    """Yield each place where the suite runs here: its name, and how to run it."""
    as_whom = "root" if os.geteuid() == 0 else "a user without rights"
    for name, place in PLACES.items():
        if not place.startswith("docker") or is_docker_there():
            yield f"{name}, as {as_whom}", lambda place=place: judge_all(place)
    if os.geteuid() == 0:
        for place in ("full", "confined"):
            name = f"local, {place}, as a user without rights"
            yield name, lambda place=place: judge_as_nobody(place)
    if is_docker_there():
        yield (
            "local, confined, in a plain container without root",
            lambda: judge_in_container(["judge", "confined"], user=65534),
        )


def judge_controls() -> list[Verdict]:
    """Make every attempt that has a control without its wall."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for attempt in ATTEMPTS:
        if attempt.without:
            groups.setdefault(attempt.without, []).append(attempt.number)
    return [
        verdict
        for isolation, numbers in groups.items()
        for verdict in judge_without(isolation, numbers)
    ]


def judge_without(isolation: Sequence[str], numbers: Sequence[str]) -> list[Verdict]:
    """Make attempts in a container without ``isolation``; as root only where root is the point."""
    words = ["control", ",".join(isolation), *numbers]
    return judge_in_container(words, user=0 if "user" in isolation else 65534, options=NO_FILTER)


def _told(name: str, judge: Callable[[], list[Verdict]]) -> list[Verdict]:
    verdicts = judge()
    counts = Counter(verdict.result for verdict in verdicts)
    sys.stdout.write(f"{name}: {dict(counts)}\n")
    sys.stdout.flush()
    return verdicts


def _counts(places: dict[str, list[Verdict]]) -> list[str]:
    lines = ["| where | attempts | held | escaped | not applicable |", "|---|---|---|---|---|"]
    for name, verdicts in places.items():
        counts = Counter(verdict.result for verdict in verdicts)
        lines.append(
            f"| {name} | {len(verdicts)} | {counts['held']} | "
            f"{counts['escaped'] + counts['broken']} | {counts['not applicable']} |"
        )
    return lines


def _details(controls: Sequence[Verdict]) -> list[str]:
    results = {verdict.number: verdict.result for verdict in controls}
    lines = ["| | attempt | held by | control: without |", "|---|---|---|---|"]
    return lines + [_row(attempt, results.get(attempt.number)) for attempt in ATTEMPTS]


def _row(attempt: Attempt, result: str | None) -> str:
    if attempt.without:
        found = {"escaped": "succeeds", None: "not run"}.get(result, "fails")
        control = f"{', '.join(attempt.without)}: {found}"
    else:
        control = f"none: {attempt.why_no_control}"
    return f"| {attempt.number} | {attempt.name} | {attempt.wall} | {control} |"
