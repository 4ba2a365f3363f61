import pytest
from codedance.envs.types import AnswerKind, Task
from in_process_sandbox import InProcessSandbox, noise


@pytest.fixture
def sandbox():
    with InProcessSandbox() as opened:
        yield opened


@pytest.fixture
def task():
    return make_task()


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
