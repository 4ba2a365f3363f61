"""Makes attempts without a layer of isolation, as a control. Only in a container.

Patches are applied to this process and to the zygote that it executes; nothing is installed.
"""

from __future__ import annotations

import hashlib
import io
import os
import secrets
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import msgpack
from codedance.sandbox import Outcome
from codedance.sandbox.host import frames, process
from codedance.sandbox.host.memory import watch
from PIL import Image

from .attempt import ESCAPED, Attempt, prelude
from .bait import Bait
from .judging import PROBE, SOUND, Verdict
from .patched import patched_worker
from .places import judge_all

_IN_WORKER = {
    "filter": "isolation.seccomp.install = lambda program: None",
    "landlock": "isolation.landlock.restrict = lambda ruleset: None",
    "rlimits": "isolation.limit_resources = lambda *_, **__: None",
    "user": "isolation.identity.become_nobody = isolation.kernel.drop_capabilities = lambda: None",
}
_MOST_BYTES = 64 << 20


class FooledError(Exception):
    """An action that a host without checks would have taken."""


def judge_without(isolation: frozenset[str], attempts: Sequence[Attempt]) -> list[Verdict]:
    """Make attempts without ``isolation``.

    Raises:
        RuntimeError: This is not a container; attempts without isolation could damage the machine.
    """
    if not Path("/.dockerenv").exists() or os.getpid() != 1:
        raise RuntimeError("isolation is only removed in a container, by its first process")
    if "exec" in isolation or "process" in isolation:
        return [_judge_in_fork(attempt) for attempt in attempts]
    if "pause" in isolation:
        process.SessionProcess.pause = lambda self: None
    if "resident" in isolation:
        watch.held_bytes = lambda status: None
    if "checks" in isolation:
        _accept_everything()
    with patched_worker([code for layer, code in _IN_WORKER.items() if layer in isolation]):
        return [verdict for one in attempts for verdict in judge_all("confined", [one])]


def _accept_everything() -> None:
    """Make the host accept any frame."""

    def lengths(prefix: bytes, _: object) -> tuple[int, int]:
        header, blob = frames.LENGTHS.unpack(prefix)
        if header + blob > _MOST_BYTES:
            raise FooledError(f"would wait for {header + blob} bytes")
        return header, blob

    def message(header: bytes, _: object) -> Any:
        return msgpack.unpackb(header, strict_map_key=False)

    def reply(header: bytes, _: int, __: object) -> frames.Reply:
        turn, outcome, stdout, stderr, error, sizes = msgpack.unpackb(header)
        return frames.Reply(turn, Outcome(outcome), stdout, stderr, error, sizes)

    process.decode_lengths = lengths
    process.decode_message = message
    process.decode_reply = reply


def _judge_in_fork(attempt: Attempt) -> Verdict:
    """Run an attempt as peers do: by ``exec`` in a fork of the trainer, shared by all episodes."""
    bait = Bait()
    reading, writing = os.pipe()
    if os.fork() == 0:
        said = io.StringIO()
        sys.argv.append(bait.canary)
        seed = str(secrets.randbits(62) | 1 << 61)
        kept = [f'{{"seed": {seed}, "pictures": {number:600}}}' for number in range(50)]
        facts = bait.facts() | {"zygote_pid": os.getpid()}
        facts |= {"seed_digest": hashlib.sha256(seed.encode()).hexdigest()}
        with redirect_stdout(said):
            _run_here([prelude(facts), *attempt.blocks])
            found = said.getvalue()
            kept.clear()  # requests of other sessions, as a worker that served them holds them
            if f"{ESCAPED}:" not in found and not _is_sound():
                found = f"{ESCAPED}: the next episode is not sound"
        os.write(writing, found.encode()[-5_000:])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8", errors="replace") as pipe:
        found = pipe.read()
    os.wait()
    bait.close()
    is_out = f"{ESCAPED}:" in found
    return Verdict(attempt.number, "escaped" if is_out else "held", found[-200:])


def _run_here(blocks: Sequence[str]) -> None:
    namespace = {"input_image": Image.new("RGB", (4, 3)), "__name__": "__main__"}
    for block in blocks:
        try:
            exec(compile(block, "<block>", "exec"), namespace)
        except BaseException as error:  # noqa: BLE001 - as peers do
            sys.stderr.write(f"{error!r}\n")


def _is_sound() -> bool:
    said = io.StringIO()
    try:
        with redirect_stdout(said):
            exec(PROBE, {})
    except BaseException:  # noqa: BLE001 - broken builtins raise anything
        return False
    return said.getvalue() == SOUND
