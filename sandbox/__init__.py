"""Isolated execution of model-written code: sessions, limits, backends.

A zygote is executed beside the trainer (never forked from it: it must hold none of its secrets),
imports the libraries once, and forks a process for every session. The isolation covers all files
but Python's own, other processes, the network, the environment, memory, disk, threads and time; a
session can only affect itself, and every frame from it is validated before it is used.

It does not cover bugs of the kernel itself, timing between sessions on one processor and, at the
isolation level without user namespaces (`Sandbox.tier` reports the level), the total disk use.

A block that fails leaves no trace. Nothing is copied for that: the next block runs in a fresh
process in which the successful blocks were replayed, and the digests of their outputs are compared.
Blocks that print the time or unseeded random numbers therefore lose the state when a later one
fails; `random`, ``numpy.random`` and unseeded ``default_rng()`` are seeded by the session.
"""

from .opening import open_sandbox
from .types import Execution, Limits, Outcome, SandboxError

__all__ = ["Execution", "Limits", "Outcome", "SandboxError", "open_sandbox"]
