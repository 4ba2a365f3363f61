"""Weights & Biases: a run per stage run, grouped by pipeline run.

W&B's own variables apply (``WANDB_API_KEY``, ``WANDB_MODE``, ``WANDB_ENTITY``, ``WANDB_PROJECT``,
``WANDB_BASE_URL``). Without credentials a run is written offline, to be sent with ``wandb sync``;
the client never asks for a key in the terminal.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from .sink import Point, SinkRun, SinkStatus

STEP = "step"
"""Metric that W&B draws the others over: its own steps only count what was sent."""
INIT_SECONDS = 30.0
"""Longest time in which W&B's server may answer; then another try is made."""
_EXIT_CODES: dict[SinkStatus, int] = {"finished": 0, "failed": 1, "interrupted": 130}


class WandbSink:
    """Writes a run through W&B's client, which sends in a process of its own.

    That process dies with ours, and forgets what it has not written yet.
    """

    keeps = False

    def __init__(self) -> None:
        self._wandb: Any = import_module("wandb")
        self._run: Any = None

    def begin(self, run: SinkRun) -> str:
        """Begin a run, or continue the one with this id."""
        wandb = self._wandb
        settings = wandb.setup(settings=wandb.Settings(silent=True)).settings
        is_offline = settings.mode != "online" or not _has_credentials(settings)
        self._run = wandb.init(
            id=run.id,
            name=run.id,
            group=run.group,
            project=os.environ.get("WANDB_PROJECT") or run.project,
            config=dict(run.parameters),
            dir=str(run.root),
            mode="offline" if is_offline and settings.mode == "online" else None,
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(
                silent=True,
                console="off",  # the terminal is ours
                disable_git=True,  # else it copies uncommitted changes
                save_code=False,
                init_timeout=INIT_SECONDS,
            ),
        )
        self._run.define_metric(STEP, hidden=True)
        self._run.define_metric("*", step_metric=STEP)
        if is_offline:
            return f"W&B, offline: wandb sync {self._run.settings.sync_dir}"
        return f"W&B: {self._run.url}"

    def log(self, points: Sequence[Point]) -> None:
        """Hand points to the client; of a run that is continued, it drops those that W&B has."""
        for point in points:
            self._run.log({STEP: point.step, **point.values}, step=point.index)

    def end(self, status: SinkStatus) -> None:
        """End the run; W&B shows an interrupted one as failed until it is continued."""
        self._run.finish(exit_code=_EXIT_CODES[status])


def _has_credentials(settings: Any) -> bool:  # noqa: ANN401 - wandb.Settings
    """Return whether W&B would find a key, where its client looks for one."""
    if any(os.environ.get(name) for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")):
        return True
    requests = import_module("requests")
    return bool(settings.api_key or requests.utils.get_netrc_auth(settings.base_url))
