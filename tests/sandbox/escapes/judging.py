"""Runs one attempt, determines whether it was held, and checks host and other sessions."""

from __future__ import annotations

import hashlib
import os
import platform
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from codedance.sandbox import Execution, Limits, Outcome, SandboxError
from codedance.sandbox.types import Sandbox, Session
from PIL import Image

from ..folders import folder_of
from .attempt import ESCAPED, Attempt, prelude
from .bait import Bait

SLOWNESS = float(os.environ.get("CODEDANCE_ESCAPES_SLOWNESS", "1"))
"""Factor of the limits of time, for emulated processors."""

LIMITS = Limits(
    wall_seconds=1.0 * SLOWNESS,
    cpu_seconds=1.0 * SLOWNESS,
    memory_mb=128,
    threads=8,
    disk_mb=8,
    output_characters=2_000,
    images=4,
    image_pixels=1_000_000,
)
"""Small limits, so that exceeding them is fast."""

_LONGEST_REPLY = LIMITS.output_characters + 400
PROBE = (
    "import random, sys\nimport numpy as np\nfrom PIL import Image\n"
    "print(len('ab'), np.zeros(2).sum(), Image.new('L', (1, 2)).size, sorted('ba'))"
)
SOUND = "2 0.0 (1, 2) ['a', 'b']\n"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Result of one attempt.

    Attributes:
        number: Number of the attempt.
        result: ``held``, ``escaped``, ``broken`` (neither: the attempt itself is wrong) or
            ``not applicable``.
        detail: End of the last block, and the problems found.
    """

    number: str
    result: str
    detail: str = ""


class Arena:
    """A sandbox with a sibling session, in which attempts are made.

    Args:
        sandbox: Sandbox of the attempts.
        bait: Bait on the host.
        worker_id: Returns the process id of the worker, to detect its death.
    """

    def __init__(self, sandbox: Sandbox, bait: Bait, worker_id: Callable[[], int]) -> None:
        self._sandbox = sandbox
        self._bait = bait
        self._worker_id = worker_id
        self._picture = Image.new("RGB", (40, 30), (200, 10, 30))
        self._picture.info["comment"] = bait.canary
        self._pixels = hashlib.sha256(self._picture.tobytes()).hexdigest()
        self._tier = sandbox.tier.partition(":")[0]
        seed = secrets.randbits(62) | 1 << 61
        self._sibling = sandbox.session([self._picture], seed=seed)
        self._sibling.run("import os\nx = 41")
        for _ in range(8):  # their requests would lie in the zygote's memory
            sandbox.session([self._picture], seed=seed).close()
        where = folder_of(self._sibling)
        self._facts = bait.facts() | {
            "tier": self._tier,
            "zygote_pid": worker_id(),
            "sibling_folder": where,
            "seed_digest": hashlib.sha256(str(seed).encode()).hexdigest(),
            "disk_mb": LIMITS.disk_mb,
            "memory_mb": LIMITS.memory_mb,
            "threads": LIMITS.threads,
            "wall_seconds": LIMITS.wall_seconds,
        }

    def judge(self, attempt: Attempt) -> Verdict:
        """Run an attempt, then probe host, zygote, sibling and a fresh session."""
        if attempt.is_x86 and platform.machine() != "x86_64":
            return Verdict(attempt.number, "not applicable", "x86-64 system calls")
        worker = self._worker_id()
        try:
            with self._sandbox.session([self._picture]) as session:
                executions = list(self._run(session, attempt))
                after = session.run("print('here')")
            amiss = [*_faults(executions), *_faults([after]), *self._unsound(worker)]
        except SandboxError as error:
            return Verdict(attempt.number, "escaped", f"blamed on infrastructure: {error}")
        except Exception as error:  # noqa: BLE001 - any error of the host is caused by the code
            return Verdict(attempt.number, "escaped", f"the host raised {error!r}"[:300])
        last = executions[-1]
        detail = f"{last.outcome}: {last.error or _brief(last.stdout)}"
        if amiss:
            return Verdict(attempt.number, "escaped", f"{'; '.join(amiss)} ({detail})")
        if not _is_end(attempt, last):
            return Verdict(attempt.number, "broken", detail)
        return Verdict(attempt.number, "held", detail)

    def close(self) -> None:
        """Close the sibling session."""
        self._sibling.close()

    def _run(self, session: Session, attempt: Attempt) -> Iterator[Execution]:
        first = session.run(prelude(self._facts))
        if not first.is_ok:
            raise RuntimeError(f"the prelude failed: {first.error}")
        for block in attempt.blocks:
            if block.startswith("WAIT "):
                time.sleep(float(block.removeprefix("WAIT ")))
            else:
                yield session.run(block)

    def _unsound(self, worker: int) -> Iterator[str]:
        yield from self._bait.complaints()
        seen = self._sibling.run("print(x + 1, input_image.getpixel((0, 0)))")
        if seen.stdout != "42 (200, 10, 30)\n":
            yield f"the sibling is not sound: {seen}"
        with self._sandbox.session([self._picture]) as fresh:
            seen = fresh.run(PROBE)
            if seen.stdout != SOUND:
                yield f"a fresh session is not sound: {seen}"
            seen = fresh.run("import hashlib\nhashlib.sha256(input_image.tobytes()).hexdigest()")
            if seen.stdout != f"{self._pixels!r}\n":
                yield f"a fresh session's picture is not sound: {seen}"
        if self._worker_id() != worker:
            yield "the zygote died"


def _faults(executions: list[Execution]) -> Iterator[str]:
    for execution in executions:
        for text in (execution.stdout, execution.stderr):
            if f"{ESCAPED}:" in text:
                yield text[text.index(f"{ESCAPED}:") :][:200]
            if len(text) > _LONGEST_REPLY:
                yield f"a text of {len(text)} characters came back"
        if len(execution.error or "") > 1_000:
            yield "a long error came back"
        if sum(image.width * image.height for image in execution.images) > LIMITS.image_pixels:
            yield "too many pixels came back"
        if (execution.error is None) != (execution.outcome is Outcome.OK):
            yield "outcome and error disagree"
        if execution.is_ok and execution.cpu_seconds > LIMITS.cpu_seconds + 0.3 * SLOWNESS:
            yield f"a block of {execution.cpu_seconds:.1f} s of processor time passed for OK"


def _is_end(attempt: Attempt, last: Execution) -> bool:
    ends = attempt.ends.split()
    if last.outcome is Outcome.OK:
        return "ok" in ends and ("held" in last.stdout or "ok " in attempt.ends)
    kind = (last.error or "").partition(":")[0]
    return last.outcome in ends or kind in ends


def _brief(text: str) -> str:
    return " ".join(text.split())[-60:]
