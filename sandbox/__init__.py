"""Runs model-written code behind walls: sessions, limits, backends.

A zygote is executed beside the trainer (never forked from it: it must hold none of its secrets),
imports the libraries once, and forks a process for every session. What the walls hold: files but
Python's own, other processes, the network, the environment, memory, disk, threads, time; a session
can only hurt itself, and every frame from it is checked before it is believed.

What they do not: bugs of the kernel itself, timing between sessions on one processor, and in the
tier without user namespaces (`Sandbox.tier` says which one stands) the sum of the disk used.

A block that fails leaves no trace. Nothing is copied for that: the next block meets a fresh process
in which the successful blocks ran again, and the digests of what they gave back are compared. So
blocks that print the time or an unseeded draw lose the state when a later one fails; `random`,
``numpy.random`` and unseeded ``default_rng()`` are seeded by the session.
"""

from .opening import open_sandbox
from .types import Execution, Limits, Outcome, SandboxError

__all__ = ["Execution", "Limits", "Outcome", "SandboxError", "open_sandbox"]
