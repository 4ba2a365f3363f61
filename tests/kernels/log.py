"""The results of a kernel as text, and their place in the log."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

from .table import Kernel

_LONGEST_DETAIL = 160


def describe(line: dict[str, Any]) -> str:
    """Return a line of progress for what the suite said."""
    where = f"{line['place']}, {line['user']}"
    if "result" in line:
        return f"{where}: {line['number']} {line['result']}: {_brief(line['detail'])}\n"
    return f"{where}: {line.get('tier') or line.get('refused') or ''}\n"


class Log:
    """Results of one run.

    Args:
        kernel: Kernel of the run.
        package: Its package, with the version.
        commit: Commit of the sandbox that ran.
        said: What the suite said.
    """

    def __init__(
        self, kernel: Kernel, package: str, commit: str, said: list[dict[str, Any]]
    ) -> None:
        self._kernel = kernel
        self._package = package
        self._commit = commit
        self._places: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for line in said:
            self._places.setdefault((line["place"], line["user"]), []).append(line)

    def is_held(self, places: list[str]) -> bool:
        """Return whether every place was tried to its end, and held or refused."""
        return len(self._places) == len(places) and all(
            lines[-1].get("ends") and _counts(lines)["held"] == _counts(lines).total()
            for lines in self._places.values()
        )

    def text(self) -> str:
        """Return the results: a line for each place, and each attempt that was not held."""
        abis = {line["abi"] for lines in self._places.values() for line in lines}
        head = f"{self._kernel.distribution}, {self._package}, landlock ABI {_joined(abis)}"
        return "\n".join([f"{head}, commit {self._commit}", *self._rows(), ""])

    def write(self, path: Path, label: str) -> None:
        """Add the results to the log, in place of earlier ones with this kernel and label."""
        name = f"{self._kernel.version} {label}".strip()
        whole = path.read_text(encoding="utf-8") if path.exists() else ""
        parts = dict(re.findall(r"^== (.+)\n((?:(?!== ).*\n)*)", whole, re.MULTILINE))
        parts[name] = self.text()
        ordered = sorted(parts, key=lambda each: [int(n) for n in re.findall(r"\d+", each)[:2]])
        path.write_text("".join(f"== {each}\n{parts[each]}" for each in ordered), encoding="utf-8")

    def _rows(self) -> list[str]:
        rows: list[str] = []
        for (place, user), lines in self._places.items():
            counts = _counts(lines)
            said = f"{counts['held']} held of {counts.total()}"
            refused = [line["refused"] for line in lines if "refused" in line]
            if refused and not counts:
                said = "refused"
            if not lines[-1].get("ends"):
                said += ", did not come to its end"
            rows.append(f"{place}, {user}: {said}")
            rows += [f"  {line['tier']}" for line in lines if "tier" in line]
            rows += [f"  refused: {words}" for words in refused]
            rows += [
                f"  {line['number']} {line['result']}: {_brief(line['detail'])}"
                for line in lines
                if line.get("result", "held") != "held"
            ]
        return rows


def _brief(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= _LONGEST_DETAIL else f"{words[:_LONGEST_DETAIL]}…"


def _counts(lines: list[dict[str, Any]]) -> Counter[str]:
    return Counter(line["result"] for line in lines if "result" in line)


def _joined(numbers: set[int]) -> str:
    return ", ".join(str(number) for number in sorted(numbers)) or "unknown"


def commit_of(checkout: Path) -> str:
    """Return the commit of a checkout, marked if it has changes."""
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
