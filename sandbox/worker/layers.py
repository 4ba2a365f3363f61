"""Single isolation layers, to measure the cost of each; never used by an open sandbox.

They report the level ``none``, which is below every minimum level that a user can set.
"""

from __future__ import annotations

import os
from typing import Any

from . import kernel, landlock, seccomp
from .isolation import Isolation
from .limits import MemoryInUse, limit_resources, memory_in_use
from .session import SessionPlan

LAYERS = ("rlimits", "seccomp", "landlock")
"""Layers in the order in which they are added; ``full`` isolation adds the namespaces."""


class LayeredIsolation(Isolation):
    """The first few of `LAYERS`.

    Args:
        config: Configuration from the host; ``isolation`` is ``layers:`` and the name of the last
            layer.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        last: str = config["isolation"].partition(":")[2]
        self._layers = LAYERS[: LAYERS.index(last) + 1]
        self._used = MemoryInUse()
        self.description = f"a measurement of {', '.join(self._layers)}: no isolation to rely on"

    def seal(self) -> None:
        """Create the resources that all sessions share."""
        super().seal()
        self._used = memory_in_use()
        if "landlock" in self._layers:
            devices = ("/dev", landlock.USE_DEVICE)
            rules = [("/", landlock.READ), devices, (self._scratch, landlock.WRITE)]
            self._ruleset = landlock.make_ruleset(rules)
        if "seccomp" in self._layers:
            kernel.set_no_new_privileges()
            seccomp.install(seccomp.zygote_program())

    def raise_for_session(self, plan: SessionPlan) -> None:
        """Apply the layers in the order of full isolation."""
        super().raise_for_session(plan)
        if "rlimits" in self._layers:
            limit_resources(plan.limits, self._used, count_threads=False)
        if "landlock" in self._layers:
            landlock.restrict(self._ruleset)
            os.close(self._ruleset)
        if "seccomp" in self._layers:
            seccomp.install(seccomp.session_program(os.getpid()))
