"""Toy tasks, hand-made turns and trajectories, and a sandbox without isolation, for these tests.

The sandbox runs harmless code in this process, so that tests are fast. Blocks run by `exec` in the
namespace of their session; a failed block is rolled back by rerunning the earlier ones, as in the
real one.
"""

import contextlib
import hashlib
import io
import random
import threading

import numpy as np
from codedance.envs.types import (
    Action,
    AnswerKind,
    Ending,
    Task,
    Trajectory,
    Turn,
)
from codedance.sandbox import Execution, Outcome, SandboxError
from codedance.sandbox.types import SessionState
from PIL import Image


def digest_of(image):
    return hashlib.sha256(f"{image.size}".encode() + image.convert("RGB").tobytes()).hexdigest()


class InProcessSession:
    def __init__(self, sandbox, images, seed, state=None):
        self._sandbox = sandbox
        self._images = [image.copy() for image in images]
        self._seed = seed
        self._blocks = list(zip(state.blocks, state.output_digests, strict=True)) if state else []
        self._namespace = None
        self.is_lost = False

    def run(self, code):
        if self.is_lost or self._sandbox.is_down:
            raise SandboxError("the session's process is gone, an infrastructure failure")
        if self._namespace is None:
            self._namespace = self._fresh()
            for block, digest in self._blocks:
                assert self._attempt(block).digest == digest
        execution = self._attempt(code)
        if execution.is_ok:
            self._blocks.append((code, execution.digest))
        else:
            self._namespace = None
        return execution

    def snapshot(self):
        return SessionState(
            seed=self._seed,
            blocks=tuple(block for block, _ in self._blocks),
            output_digests=tuple(digest for _, digest in self._blocks),
            image_digests=tuple(digest_of(image) for image in self._images),
        )

    def close(self):
        self._sandbox.open_sessions.discard(self)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _fresh(self):
        self._shown = []
        self._random = random.Random(self._seed)
        return {
            "input_image": self._images[0] if self._images else None,
            "input_images": self._images,
            "display": self._shown.append,
            "seeded": self._random.random,
        }

    def _attempt(self, code):
        stdout = io.StringIO()
        self._shown.clear()
        try:
            compiled = compile(code, "block", "exec")
            with self._sandbox.stdout_lock, contextlib.redirect_stdout(stdout):
                exec(compiled, self._namespace)
        except Exception as error:  # noqa: BLE001 - whatever a block raises
            message = f"{type(error).__name__}: {error}"
            return Execution(Outcome.ERROR, stdout=stdout.getvalue(), error=message)
        images = tuple(image.convert("RGB") for image in self._shown)
        return Execution(Outcome.OK, stdout=stdout.getvalue(), images=images)


class InProcessSandbox:
    """Counts opened sessions; `is_down` and `lose_sessions` simulate infrastructure failures."""

    tier = "none: the test's own process"

    def __init__(self):
        self.open_sessions = set()
        self.opened = 0
        self.is_down = False
        self.is_closed = False
        self.stdout_lock = threading.RLock()

    def session(self, images=(), *, seed=0):
        return self._open(InProcessSession(self, images, seed))

    def restore(self, state, images=()):
        assert tuple(digest_of(image) for image in images) == state.image_digests
        return self._open(InProcessSession(self, images, state.seed, state))

    def lose_sessions(self):
        for session in self.open_sessions:
            session.is_lost = True

    def close(self):
        self.is_closed = True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __deepcopy__(self, memo):
        return self  # a copied specification refers to the same sandbox

    def _open(self, session):
        if self.is_down:
            raise SandboxError("the sandbox is down")
        self.opened += 1
        self.open_sessions.add(session)
        return session


def noise(width=24, height=16, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def make_task(**changes):
    fields = {
        "id": "toy/counting/train/0",
        "suite": "toy",
        "family": "counting",
        "split": "train",
        "question": "How many dots are there?",
        "images": (noise(),),
        "answer": "5",
        "answer_kind": AnswerKind.INTEGER,
    }
    return Task(**(fields | changes))


class ToySuite:
    """Ten tasks of one question whose images and answers differ."""

    name = "toy"
    split = "train"
    families = ("counting",)

    def __len__(self):
        return 10

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            raise IndexError(index)
        return make_task(
            id=f"toy/counting/train/{index}", images=(noise(seed=index),), answer=str(index)
        )

    def task(self, task_id):
        if not task_id.startswith("toy/counting/train/"):
            raise KeyError(f"no task {task_id!r}")
        return self[int(task_id.rsplit("/", 1)[1])]


def call(output="", *, outcome=Outcome.OK, evidence=None, images=(), error=None, handled=False):
    """Return a hand-made tool turn."""
    if outcome is not Outcome.OK:
        error = error or "ValueError: no"
    execution = Execution(
        outcome, stdout=output, images=images, error=error, has_handled_error=handled
    )
    return Turn("…", Action("code", "…"), execution, has_evidence=evidence)


def failed(outcome=Outcome.ERROR):
    return call(outcome=outcome)


def answered(content="5", fault=None):
    return Turn("…", Action("answer", content, fault))


def trajectory(*turns, accuracy=1.0, ending=Ending.ANSWERED, **changes):
    """Return a hand-made trajectory; an answer is added if it ends with one."""
    if ending is Ending.ANSWERED and not (turns and turns[-1].action.kind == "answer"):
        turns = (*turns, answered())
    fields = {
        "task_id": "toy/counting/train/0",
        "policy_id": "by hand",
        "seed": 0,
        "opening": (),
        "turns": turns,
        "ending": ending,
        "accuracy": accuracy,
    }
    return Trajectory(**(fields | changes))
