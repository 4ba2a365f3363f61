"""Policies and sandboxes for tests: small, real implementations of the protocols."""

from collections.abc import Callable, Sequence

from codedance.envs.types import Action, Ending, Message, Task, Tokens, Trajectory, Turn
from codedance.policies.interface import Conversation, PolicyUnavailableError, Reply, Sampling
from codedance.sandbox import Execution, Outcome, SandboxError
from codedance.sandbox.types import Sandbox, Session, SessionState
from PIL import Image

from .tiny import noise


def code(program: str) -> str:
    return f"<code>\n```python\n{program}\n```\n</code>"


def letters(trajectory: Trajectory) -> float:
    """Custom term that distinguishes siblings: a random model has no right answers."""
    text = trajectory.turns[0].text
    return sum(character.isascii() for character in text) / max(len(text), 1)


def task(index: int = 0, answer: str = "5") -> Task:
    return Task(f"toy/{index}", "toy", "toy", "train", "How many?", (noise(index),), answer)


class PlannedPolicy:
    """Replies with a function of the conversation."""

    id = "planned"
    system_prompt = ""

    def __init__(self, plan: Callable[[Conversation], str | None]) -> None:
        self.plan = plan
        self.batches: list[int] = []

    def reply(self, conversations: Sequence[Conversation], *, sampling: Sampling) -> list[Reply]:
        self.batches.append(len(conversations))
        texts = [self.plan(one) for one in conversations]
        if None in texts:
            raise PolicyUnavailableError("the server is away")
        return [Reply(text or "") for text in texts]


class CountingSandbox:
    """A real sandbox that counts the requested sessions."""

    def __init__(self, real: Sandbox) -> None:
        self.real = real
        self.tier = real.tier
        self.sessions = 0

    def session(self, images: Sequence[Image.Image] = (), *, seed: int = 0) -> Session:
        self.sessions += 1
        return self.real.session(images, seed=seed)

    def restore(self, state: SessionState, images: Sequence[Image.Image] = ()) -> Session:
        return self.real.restore(state, images)


class AbsentSandbox:
    """A sandbox that cannot open a session: always an infrastructure failure."""

    tier = "none"

    def session(self, images: Sequence[Image.Image] = (), *, seed: int = 0) -> Session:
        raise SandboxError("no session to be had")

    def restore(self, state: SessionState, images: Sequence[Image.Image] = ()) -> Session:
        raise SandboxError("no session to be had")


def trajectory(
    *,
    accuracy: float | None = 1.0,
    blocks: Sequence[str] = (),
    fails: bool = False,
    tokens: Tokens | None = None,
) -> Trajectory:
    """Return a trajectory with these blocks and an answer; lost if ``accuracy`` is None."""
    outcome = Outcome.ERROR if fails else Outcome.OK
    turns = [
        Turn(code(block), Action("code", block), Execution(outcome, stdout=f"{block}\n"))
        for block in blocks
    ]
    turns.append(Turn("<answer>5</answer>", Action("answer", "5")))
    return Trajectory(
        task_id="toy/0",
        policy_id="hand",
        seed=0,
        opening=(Message("user", (noise(0), "How many?")),),
        turns=tuple(turns),
        ending=Ending.INFRASTRUCTURE if accuracy is None else Ending.ANSWERED,
        accuracy=accuracy,
        answer="5",
        tokens=tokens,
    )
