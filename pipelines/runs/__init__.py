"""Runs of stages: the session, run requests, the runner, launches and progress."""
