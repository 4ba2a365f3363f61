"""Runs of stages: session, run requests, runner, distributed launches and progress."""
