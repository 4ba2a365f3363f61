"""A sandbox whose blocks take longer than they do: a tool behind a network."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from codedance.sandbox.types import Execution, Sandbox, Session, SessionState
from PIL import Image


@dataclass(slots=True)
class SlowSandbox:
    """Waits before each block.

    Attributes:
        real: Sandbox that runs the blocks.
        seconds: Time that each block takes longer.
    """

    real: Sandbox
    seconds: float

    @property
    def tier(self) -> str:
        """Isolation of the sandbox."""
        return self.real.tier

    def session(self, images: Sequence[Image.Image] = (), *, seed: int = 0) -> Session:
        """Open a slow session."""
        return _SlowSession(self.real.session(images, seed=seed), self.seconds)

    def restore(self, state: SessionState, images: Sequence[Image.Image] = ()) -> Session:
        """Restore a slow session."""
        return _SlowSession(self.real.restore(state, images), self.seconds)

    def close(self) -> None:
        """End every session."""
        self.real.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(slots=True)
class _SlowSession:
    real: Session
    seconds: float

    def run(self, code: str) -> Execution:
        time.sleep(self.seconds)
        return self.real.run(code)

    def snapshot(self) -> SessionState:
        return self.real.snapshot()

    def close(self) -> None:
        self.real.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
