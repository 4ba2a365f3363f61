"""The command line; nothing heavy is imported before a command is known."""

from __future__ import annotations


def main() -> None:
    """Run ``codedance``."""
    from .app import run_app

    run_app()
