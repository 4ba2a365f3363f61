"""One vector environment from creation to close, in its own process.

Run as ``python -m benchmarks.measuring.env_trial KIND COUNT STEPS SEED``; prints one line of
JSON. Memory in use before its creation (the interpreter, the imports) is subtracted.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import gymnasium
from codedance.envs.visual_code import VisualCodeEnv

from .processes import descendants, tree_memory

ID = "codedance.envs:codedance/VisualCode-v0"
OURS, SYNC, ASYNC = "ours", "SyncVectorEnv", "AsyncVectorEnv"
KINDS: dict[str, dict[str, Any]] = {
    OURS: {},
    SYNC: {"vectorization_mode": "sync"},
    ASYNC: {"vectorization_mode": "async", "vector_kwargs": {"shared_memory": False}},
}
"""Keywords of `gymnasium.make_vec`; text does not fit shared memory."""

TURNS = (
    "<code>\n```python\nprint(input_image.getpixel((3, 3)))\n```\n</code>",
    "<code>\n```python\ninput_image.crop((20, 20, 120, 120))\n```\n</code>",
    "<code>\n```python\nimport numpy as np\n"
    "print(int((np.array(input_image) > 200).sum()))\n```\n</code>",
    "<answer>3</answer>",
    "",  # ignored: the step after an ending begins the next episode
)
"""Actions of every member, repeated: an episode of three blocks and an answer."""


@dataclass(frozen=True, slots=True)
class Trial:
    """Measurements of one vector environment.

    Attributes:
        first_step_seconds: Time from creation to the first step's result, one block per member.
        steps_a_second: Steps of all members per second afterwards, with resets and scoring.
        memory_mb: Memory of it and its processes after the last step; None if unreadable.
        processes: Number of processes that it started, including sandbox and sessions.
        left_processes: Number of those processes left after ``close()``.
        left_mb: Memory that ``close()`` did not release.
        digest: Digest of all texts, rewards and endings, the same for every kind.
    """

    first_step_seconds: float
    steps_a_second: float
    memory_mb: float | None
    processes: int
    left_processes: int
    left_mb: float | None
    digest: str


def run_trial(kind: str, count: int, steps: int, seed: int) -> Trial:
    """Create a vector environment, step it, and close it.

    Args:
        kind: One of `KINDS`.
        count: Number of members.
        steps: Number of steps of the vector environment after the first.
        seed: Random seed of the tasks.
    """
    _warm_up(seed)
    own, before = os.getpid(), _memory()
    seen = hashlib.sha256()
    started = time.perf_counter()
    envs = gymnasium.make_vec(ID, num_envs=count, **KINDS[kind])
    envs.reset(seed=seed)
    _step(envs, 0, count, seen)
    first = time.perf_counter() - started
    started = time.perf_counter()
    for number in range(1, steps + 1):
        _step(envs, number, count, seen)
    seconds = time.perf_counter() - started
    processes, memory = len(set(descendants(own))), _memory()
    envs.close()
    del envs
    after = _memory()
    return Trial(
        first_step_seconds=first,
        steps_a_second=count * steps / seconds,
        memory_mb=_minus(memory, before),
        processes=processes,
        left_processes=len(set(descendants(own))),
        left_mb=_minus(after, before),
        digest=seen.hexdigest(),
    )


def _warm_up(seed: int) -> None:
    """Reset to a task of every family and play an episode, to exclude imports and caches."""
    env = VisualCodeEnv()
    for index in range(len(env.suite.families)):
        env.reset(options={"task": env.suite[index]})
    env.reset(seed=seed)
    for text in TURNS[:-1]:
        env.step(text)
    env.close()


def _step(envs: gymnasium.vector.VectorEnv, number: int, count: int, seen: Any) -> None:  # noqa: ANN401
    texts = (TURNS[number % len(TURNS)],) * count
    observation, rewards, terminations, truncations, infos = envs.step(texts)
    if truncations.any() or not infos["is_valid"].all():
        raise RuntimeError("the sandbox failed while it was measured")
    seen.update(repr((observation["text"], rewards.tolist(), terminations.tolist())).encode())


def _memory() -> float | None:
    gc.collect()
    return tree_memory(os.getpid())


def _minus(value: float | None, before: float | None) -> float | None:
    return None if value is None or before is None else value - before


def main() -> None:
    """Run the trial that the command line names."""
    kind, *numbers = sys.argv[1:]
    count, steps, seed = map(int, numbers)
    sys.stdout.write(json.dumps(asdict(run_trial(kind, count, steps, seed))) + "\n")


if __name__ == "__main__":
    main()
