"""The command line; heavy imports are deferred until a command is known."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run ``codedance``; in a distributed launch, all ranks but the first follow that one."""
    is_one_of_several = os.environ.get("WORLD_SIZE", "1") != "1"
    if is_one_of_several and os.environ.get("RANK", "0") != "0":
        from ..runs.distributed_launch import follow

        sys.exit(follow())
    from .app import run_app

    try:
        run_app()
    finally:
        if is_one_of_several:
            from ..runs.distributed_launch import dismiss

            dismiss()
