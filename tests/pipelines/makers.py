"""Small tasks and trajectories for the tests of this room."""

from __future__ import annotations

import numpy as np
from codedance.envs.types import (
    Action,
    AnswerKind,
    Difficulty,
    Ending,
    Message,
    Task,
    Tokens,
    Trajectory,
    Turn,
    WeightSpan,
)
from codedance.pipelines.store.lineage import StageRequest
from codedance.sandbox import Execution, Outcome
from PIL import Image


def make_picture(seed=0, size=(24, 16)):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def make_task(number=0, *, family="count", difficulty=Difficulty.EASY, split="train", **changes):
    values = {
        "id": f"toy/{family}/{split}/{number}",
        "suite": "toy",
        "family": family,
        "split": split,
        "question": "How many dots are there?",
        "images": (make_picture(number),),
        "answer": "3",
        "answer_kind": AnswerKind.INTEGER,
        "difficulty": difficulty,
        "provenance": {"seed": str(number)},
    }
    return Task(**{**values, **changes})


def make_trajectory(task, *, answer="3", accuracy=1.0, calls=1, failed=0, **changes):
    """Return a trajectory of ``calls`` code turns, the first ``failed`` failing, and an answer."""
    turns = [_code_turn(n, is_ok=n >= failed) for n in range(calls)]
    if answer is not None:
        turns.append(Turn(f"<answer>{answer}</answer>", Action("answer", answer)))
    values = {
        "task_id": task.id,
        "policy_id": "toy",
        "seed": 2**62,
        "opening": (Message("user", (*task.images, task.question)),),
        "turns": tuple(turns),
        "ending": Ending.ANSWERED,
        "accuracy": accuracy,
        "answer": answer,
        "reward_terms": {"accuracy": accuracy, "format": -0.2, "tool_sequence": None},
        "tokens": Tokens(
            (5, 6, 7),
            (0.0, -0.5, -0.25),
            (-1, 0, 1),
            images=1,
            weight_versions=(WeightSpan("step-2", 1, 2), WeightSpan("step-3", 2, 3)),
        ),
        "pass_rate": 0.5,
    }
    return Trajectory(**{**values, **changes})


def make_lost(task):
    """Return a trajectory lost to infrastructure."""
    return make_trajectory(
        task, answer=None, accuracy=None, calls=0, ending=Ending.INFRASTRUCTURE, reward_terms={}
    )


def make_request(stage="curate", *, seed=0, parameters=None, inputs=None):
    return StageRequest(stage, "smoke", parameters or {}, inputs or {}, seed, "code")


def _code_turn(number, *, is_ok):
    code = f"print({number})"
    outcome = Outcome.OK if is_ok else Outcome.ERROR
    error = None if is_ok else "NameError: x, line 1"
    shown = (make_picture(100 + number, (8, 8)),) if is_ok else ()
    execution = Execution(outcome, f"{number}\n", "", error, shown, 0.25, 0.125)
    reply = Message("user", (f"<tool_response>\n{number}", *shown, "</tool_response>"))
    text = f"<code>\n```python\n{code}\n```\n</code>"
    return Turn(text, Action("code", code), execution, reply, has_evidence=is_ok)
