"""Which failures are worth another try: ours, never the user's wish to stop."""

from __future__ import annotations

from typing import Any

from ...policies.interface import PolicyUnavailableError
from ...sandbox import SandboxError

INFRASTRUCTURE = (SandboxError, PolicyUnavailableError, ConnectionError)


async def is_infrastructure(_task: Any, _run: Any, state: Any) -> bool:  # noqa: ANN401 - Prefect's
    """Say whether a failed task ended by our infrastructure's fault."""
    error = await state.result(raise_on_failure=False)
    return isinstance(error, INFRASTRUCTURE)
