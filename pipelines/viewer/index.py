"""The table of all trajectories that the page filters and sorts: one column per property."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ...envs.rewards.terms import is_scored
from ...envs.types import Task, Trajectory
from ..store.lineage import StageRun
from .advantages import Advantages
from .plan import Contrast, Shown
from .records import mean_log_probability
from .tools import tools_used

MOST_TOOLS = 40
"""Maximum number of tools to filter by, the most common first."""


class _Names:
    """Distinct values in order of appearance, with the index of each."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}

    def place(self, name: str) -> int:
        return self.names.setdefault(name, len(self.names))


class Index:
    """Collects the rows; `table` returns the columns."""

    def __init__(self, tasks: dict[str, Task]) -> None:
        self._tasks = tasks
        self._task_places = _Names()
        self._names = {key: _Names() for key in ("stage", "phase", "ending", "policy")}
        self._rows: dict[int, dict[str, Any]] = {}
        self._tools: dict[int, frozenset[str]] = {}
        self._uses: Counter[str] = Counter()

    def add(self, shown: Shown, trajectory: Trajectory, advantages: Advantages) -> None:
        """Add a row."""
        e = shown.episode
        certainty = mean_log_probability(trajectory.tokens)
        self._rows[shown.row] = {
            "id": e.id,
            "run": shown.run,
            "stage": self._names["stage"].place(shown.stage.stage),
            "phase": self._names["phase"].place(e.phase),
            "step": e.step,
            "sample": e.sample,
            "task": self._task_places.place(e.task_key),
            "policy": self._names["policy"].place(trajectory.policy_id),
            "ending": self._names["ending"].place(str(e.ending)),
            "accuracy": e.accuracy if e.is_valid else None,
            "answer": e.answer,
            "reward": _rounded(trajectory.reward if is_scored(trajectory) else None),
            "advantage": _rounded(advantages.group),
            "certainty": _rounded(certainty),
            "calls": e.tool_calls,
            "failed": e.tool_calls - e.tool_successes,
            "turns": len(trajectory.turns),
        }
        blocks = [turn.action.content for turn in trajectory.turns if turn.action.kind == "code"]
        tools = frozenset(name for code in blocks for name in tools_used(code))
        self._tools[shown.row] = tools
        self._uses.update(tools)

    def table(
        self, runs: Sequence[StageRun], contrast: Contrast | None, shard_of: dict[int, int]
    ) -> dict[str, Any]:
        """Return columns and names in the page's format."""
        rows = [self._rows[row] for row in sorted(self._rows)]
        columns = {name: [row[name] for row in rows] for name in (rows[0] if rows else {})}
        tools = [name for name, _ in self._uses.most_common(MOST_TOOLS)]
        places = {name: n for n, name in enumerate(tools)}
        columns["tools"] = [
            sorted(places[name] for name in self._tools[row] if name in places)
            for row in sorted(self._rows)
        ]
        columns["shard"] = [shard_of[row] for row in sorted(self._rows)]
        if contrast is not None:
            columns["change"] = [contrast.of_row.get(row) for row in sorted(self._rows)]
        return {
            "runs": [_run(run) for run in runs],
            "names": {name: list(found.names) for name, found in self._names.items()},
            "tools": tools,
            "tasks": [_task(self._tasks[key]) for key in self._task_places.names],
            "contrast": None if contrast is None else [contrast.first, contrast.second],
            "columns": columns,
        }


def _run(run: StageRun) -> dict[str, Any]:
    return {
        "id": run.id,
        "preset": run.preset,
        "suite": str(run.parameters.get("suite", "")),
        "seed": str(run.seed),
        "commit": (run.git_commit or "")[:12],
        "started": f"{run.started_at:%Y-%m-%d %H:%M} UTC",
        "status": run.status,
    }


def _task(task: Task) -> dict[str, Any]:
    return {
        "id": task.id,
        "family": task.family,
        "difficulty": str(task.difficulty),
        "split": task.split,
        "question": task.question,
        "answer": task.answer,
        "kind": str(task.answer_kind),
        "choices": list(task.choices),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 4)
