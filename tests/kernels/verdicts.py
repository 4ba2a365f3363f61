"""The suite in one place, one verdict per line: ``python -m kernels.verdicts PLACE USER``."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict

from codedance.sandbox import SandboxError
from codedance.sandbox.worker.landlock import abi
from sandbox.escapes.catalogue import ATTEMPTS
from sandbox.escapes.places import open_arena


def main(place: str, user: str, *numbers: str) -> None:
    """Write where the suite runs, and then its verdicts."""
    about = {"place": place, "user": user, "release": os.uname().release, "abi": abi()}
    _write({**about, "begins": True})
    chosen = [attempt for attempt in ATTEMPTS if not numbers or attempt.number in numbers]
    try:
        with open_arena(place) as arena:
            _write({**about, "tier": arena._sandbox.tier})
            for attempt in chosen:
                _write({**about, **asdict(arena.judge(attempt))})
    except SandboxError as error:
        _write({**about, "refused": str(error)})
    _write({**about, "ends": True})


def _write(what: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
