"""Attempts: code as a model writes it, its expected end, and the isolation that holds it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

REFUSED = (
    "PermissionError FileNotFoundError NotADirectoryError OSError ProcessLookupError "
    "BlockingIOError"
)
"""Exceptions of a refusal; an attempt that ends otherwise is broken, not held."""

ESCAPED = "ESCAPED"
"""Output of a successful attempt."""

FILTER = "system-call filter"
HOST = "the host validates every frame"
"""Layers that hold many attempts."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to escape.

    Attributes:
        number: Number in the list of the docs; 80 and above are our own.
        name: Description.
        blocks: Code of the model, turn by turn, after `PRELUDE`.
        ends: Allowed ends of the last block: exceptions, or outcomes in lower case. ``ok`` counts
            only if the attempt printed ``held``.
        held_by: Isolation layers that hold it.
        without: Layers that its control removes, in a container; then it must succeed.
        why_no_control: Reason for no control if ``without`` is empty.
        is_x86: Whether it uses x86-64 system calls that other machines lack.
    """

    number: str
    name: str
    blocks: tuple[str, ...]
    ends: str = REFUSED
    held_by: str = ""
    without: tuple[str, ...] = ()
    why_no_control: str = ""
    is_x86: bool = False


def prelude(facts: Mapping[str, object]) -> str:
    """Return the first block of every attempt: knowledge and tools of an adversary."""
    return f"import json\nFACTS = json.loads({json.dumps(facts)!r})\n{PRELUDE}"


PRELUDE = '''
import ctypes, errno, hashlib, os, re, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
IS_ARM = os.uname().machine == "aarch64"

def escaped(detail):
    print("ESC" + "APED:", str(detail)[:200])
    return True

def canary_in(data):
    text = data if isinstance(data, bytes) else str(data).encode("utf-8", "replace")
    for word in re.findall(rb"CANARY-([0-9a-f]{32})", text):
        if hashlib.sha256(word).hexdigest() == FACTS["digest"]:
            return escaped("the canary")
    return False

def tries(*actions):
    """Run each; a truthy answer is an escape, an OSError a refusal."""
    refusals = set()
    for action in actions:
        try:
            answer = action()
        except OSError as error:
            refusals.add(type(error).__name__)
        else:
            answer and escaped(answer)
    print("refused:", *sorted(refusals))
    print("held")

def call(x86, arm, *arguments):
    """Make a system call by its number; OSError as the kernel says."""
    passed = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = libc.syscall(ctypes.c_long(arm if IS_ARM else x86), *passed)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result

def reaches_kernel(name, x86, arm, *arguments):
    """Whether a call gets past the filter: the kernel looks at its arguments, or does it."""
    if (arm if IS_ARM else x86) is None:
        return
    try:
        call(x86, arm, *(arguments or (0, 0, 0, 0, 0, 0)))
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOSYS, errno.EAGAIN):
            return
        return escaped(f"{name} reached the kernel: {errno.errorcode[error.errno]}")
    return escaped(f"{name} was done")

def own_socket():
    import stat
    for fd in range(3, 64):
        try:
            if stat.S_ISSOCK(os.fstat(fd).st_mode): return fd
        except OSError: pass

def send(header, blob=b"", lengths=None):
    """Speak the worker's protocol."""
    import msgpack, struct
    packed = header if isinstance(header, bytes) else msgpack.packb(header)
    prefix = struct.pack("!II", *(lengths or (len(packed), len(blob))))
    os.write(own_socket(), prefix + packed + blob)
'''
