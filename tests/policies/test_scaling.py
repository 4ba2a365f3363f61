import pytest
from codedance.policies.interface import Reply
from codedance.policies.scaling import majority, scale

from .players import code, task

TASKS = [task(index) for index in range(4)]


class Wavering:
    """Looks once, then is right; without a turn for it, or by its seed, it is wrong."""

    id, system_prompt = "wavering", ""

    def reply(self, conversations, *, sampling):
        return [Reply(self.text(talk, sampling)) for talk in conversations]

    def text(self, talk, sampling):
        if "A first look gave" in talk.messages[0].text:
            return "<answer>5</answer>"
        if sampling.temperature > 0:
            return f"<answer>{5 if talk.seed % 4 else 6}</answer>"
        return code("print(5)") if talk.turn == 0 else "<answer>6</answer>"


def test_more_turns_more_samples_and_a_second_look_are_measured(sandbox):
    points = {
        (one.method, one.amount): one
        for one in scale(Wavering(), TASKS, sandbox=sandbox, turns=(1, 2), samples=(1, 15))
    }
    assert points["turns", 1].accuracy == 0.0
    assert points["turns", 2].accuracy == 0.0
    assert points["second look", 2].accuracy == 1.0
    assert points["majority", 15].accuracy == 1.0
    assert points["majority", 15].tokens == 15.0
    assert points["majority", 1].tokens == 1.0
    assert points["second look", 2].tokens == points["turns", 2].tokens + 1.0
    assert {one.tasks for one in points.values()} == {4}


@pytest.mark.parametrize(
    ("answers", "wanted"),
    [
        (["4", "5", "5"], "5"),
        (["4", "5"], "4"),
        (["Red", " red ", "blue"], "red"),
        ([None, None], None),
        ([], None),
        ([None, "7"], "7"),
    ],
)
def test_the_commonest_answer_wins_and_the_earlier_of_equals(answers, wanted):
    assert majority(answers) == wanted
