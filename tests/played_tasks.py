"""Play a script on 100 tasks; print digests of the results, equal under any versions.

Needs what ``codedance[sandbox]`` installs and nothing else, so that it runs in any trainer's
environment. The script knows the suite's programs, never an answer: it runs the right program, an
inaccurate one, a broken one first, the worker's libraries or a crop, or writes an invalid turn.
Every task has three exact digests: of the observations (texts and images), of the rewards (of each
step, by term, and of ``score_group``), and of the endings.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from importlib import metadata

import gymnasium as gym
from codedance.envs import load_suite
from codedance.envs.rewards import score_group
from codedance.envs.rewards.evidence import record_evidence
from codedance.envs.types import Message
from codedance.policies.scripted.oracle import KNOWN, LOOK, program_for, read_answer
from PIL import Image

ID = "codedance.envs:codedance/VisualCode-v0"
TASKS = 100
NAMED = (
    *("numpy", "pillow", "gymnasium", "msgpack", "scipy", "opencv-python-headless"),
    *("transformers", "fastapi", "pydantic"),
)
BROKEN = LOOK.format(code="import numpy as np\nnp.array(input_image)[999]\n")
EDGES = """\
import cv2, numpy as np
a = np.array(input_image.convert("L").resize((28, 28)))
edges = cv2.Canny(np.kron(a, np.ones((4, 4), np.uint8)), 60, 120)
print(int((edges > 0).sum()), int(a.astype(int).sum()))
display(input_image.convert("L").crop((0, 0, 60, 60)).resize((40, 30)))
"""
PIECES = """\
import numpy as np
from scipy import ndimage
from skimage import measure
a = np.array(input_image.convert("L")) < 128
print(int(ndimage.label(a)[1]), int(measure.label(a).max()))
"""
CROP = "input_image.crop((20, 30, 120, 110)).resize((50, 40))\n"


def first_texts(question: str, number: int) -> tuple[str, ...]:
    """Return the script's turns before its answer: one of six variants, by the task's number."""
    code = program_for(question) or CROP
    coarse = code.replace("input_image)", "input_image.resize((56, 56)))")
    ways = (
        (LOOK.format(code=code),),
        (LOOK.format(code=coarse),),
        (BROKEN, LOOK.format(code=code)),
        (LOOK.format(code=PIECES if number % 25 == 9 else EDGES), LOOK.format(code=code)),
        (LOOK.format(code=CROP), LOOK.format(code=CROP), LOOK.format(code=code)),
        ("I would rather not say.",),
    )
    return ways[number % len(ways)]


class Recorder:
    """Computes the three digests of one task's episodes."""

    def __init__(self) -> None:
        self.observations = hashlib.sha256()
        self.rewards = hashlib.sha256()
        self.endings = hashlib.sha256()

    def note(self, observation: dict, info: dict, reward: float = 0.0, *flags: bool) -> None:
        """Add one step."""
        for image in observation["images"]:
            head = repr((image.shape, str(image.dtype))).encode()
            self.observations.update(head + image.tobytes())
        self.observations.update(json.dumps(observation["text"]).encode())
        terms = {name: float(value).hex() for name, value in info["reward_terms"].items()}
        self.rewards.update(json.dumps([float(reward).hex(), terms], sort_keys=True).encode())
        rest = {name: value for name, value in info.items() if name != "reward_terms"}
        self.endings.update(json.dumps([rest, flags], sort_keys=True).encode())

    def digests(self) -> dict[str, str]:
        """Return the digests by name, 16 hexadecimal digits each."""
        return {name: seen.hexdigest()[:16] for name, seen in vars(self).items()}


def play(env: gym.Env, task_id: str, number: int, seed: int, recorder: Recorder) -> None:
    """Play one episode and record all results."""
    observation, info = env.reset(seed=seed, options={"task_id": task_id})
    question = observation["text"]
    recorder.note(observation, info)
    for text in first_texts(question, number):
        observation, reward, terminated, truncated, info = env.step(text)
        recorder.note(observation, info, reward, terminated, truncated)
        if terminated or truncated:
            return
    images = tuple(Image.fromarray(image) for image in observation["images"])
    answer = read_answer(question, Message("user", (*images, observation["text"])))
    observation, reward, terminated, truncated, info = env.step(KNOWN.format(answer=answer))
    recorder.note(observation, info, reward, terminated, truncated)


def digests(tasks: int) -> tuple[dict[str, dict[str, str]], int]:
    """Return each task's digests, half of them of each split, and the number of right answers."""
    found, right = {}, 0
    for split in ("train", "test"):
        suite = load_suite("nano", split=split)
        env = gym.make(ID, suite=suite, split=split)
        for number in range(tasks // 2):
            task, recorder, played = suite[number], Recorder(), []
            for seed in (0, 1):
                play(env, task.id, number + 3 * seed, seed, recorder)
                one = env.unwrapped.trajectory("script")
                images = env.unwrapped.episode.images
                played.append(record_evidence(one, images, env.unwrapped.sandbox))
                right += one.accuracy == 1.0
            recorder.rewards.update(json.dumps([task.answer, score_group(played)]).encode())
            found[task.id] = recorder.digests()
        env.close()
    return found, right


def whole(found: dict[str, dict[str, str]]) -> str:
    """Return one digest of all tasks."""
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()


def main() -> None:
    """Play all tasks; print digests, versions and the time as one line of JSON."""
    started = time.perf_counter()
    found, right = digests(TASKS)
    versions = {name: version(name) for name in NAMED}
    report = {"digest": whole(found), "right": right, "tasks": found, "versions": versions}
    report |= {"python": sys.version.split()[0], "seconds": time.perf_counter() - started}
    sys.stdout.write(json.dumps(report) + "\n")


def version(name: str) -> str | None:
    """Return the installed version of a distribution; None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
