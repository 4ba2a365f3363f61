from dataclasses import replace

import pytest
from codedance.envs import load_suite
from codedance.envs.types import AnswerKind, Message
from codedance.policies import load_policy, rollout
from codedance.policies.analysis.scaling import majority, scale, self_checked
from codedance.policies.inference.partial_replies import PartialRepliesError
from codedance.policies.interface import Reply
from codedance.policies.rollouts.losses import EpisodesLostError
from codedance.policies.scripted.oracle import (
    program_for,
    question_of,
    register_program,
    unregister_program,
)
from codedance.policies.second_look import plain_question, second_look

from ..players import AbsentSandbox, PlannedPolicy, code, task

TASKS = [task(index) for index in range(4)]


class Wavering:
    """Calls the tool once, then is right; wrong without a turn for the call, or by its seed."""

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
def test_the_most_common_answer_wins_and_the_earlier_of_equals(answers, wanted):
    assert majority(answers) == wanted


def second_point(policy, tasks, sandbox):
    points = scale(policy, tasks, sandbox=sandbox, turns=(1, 3), samples=(1,))
    return {one.method: one for one in points if one.amount in (2, 3)}


def is_second(talk):
    return "A first look gave" in talk.messages[0].text


LOOK = code("print(input_image.getpixel((0, 0)))")


def looks_then_says(first, second, *, founded=()):
    """Return a policy with two answers; ``founded`` lists the looks that read the image."""

    def plan(talk):
        look = 1 if is_second(talk) else 0
        if look in founded and talk.turn == 0:
            return LOOK
        return f"<answer>{second if look else first}</answer>"

    return PlannedPolicy(plan)


def test_a_perfect_policy_stays_perfect_when_it_checks_itself(sandbox):
    suite = load_suite("nano", split="test")
    tasks = [suite[index] for index in range(14)]
    found = second_point(load_policy("oracle"), tasks, sandbox)
    assert found["turns"].accuracy == found["second look"].accuracy == 1.0
    assert found["second look"].tasks == 14


@pytest.mark.parametrize(
    ("first", "second", "founded", "accuracy"),
    [
        ("5", "5", (), 1.0),
        ("6", "5", (), 1.0),  # wrong, then right
        ("6", "5", (1,), 1.0),
        ("6", "5", (0, 1), 1.0),
        ("5", "6", (), 0.0),  # changes a guess
        ("5", "6", (0,), 1.0),  # keeps an observation
        ("5", "6", (0, 1), 0.0),
        ("5", "unknown", (), 1.0),
        ("5", "Unknown.", (1,), 1.0),
        ("5", "", (1,), 1.0),
        ("unknown", "5", (0,), 1.0),
        ("unknown", "unknown", (), 0.0),
        (" 5", "5 ", (1,), 1.0),
    ],
)
def test_agreement_is_kept_and_a_guess_does_not_overrule_an_observation(
    sandbox, first, second, founded, accuracy
):
    policy = looks_then_says(first, second, founded=founded)
    assert second_point(policy, [task()], sandbox)["second look"].accuracy == accuracy


def test_a_constant_is_not_an_observation(sandbox):
    def plan(talk):
        if talk.turn == 0 and not is_second(talk):
            return code("print(6)")
        return f"<answer>{5 if is_second(talk) else 6}</answer>"

    assert second_point(PlannedPolicy(plan), [task()], sandbox)["second look"].accuracy == 1.0


@pytest.mark.parametrize("lost", [0, 1])
def test_a_look_lost_to_infrastructure_is_neither_right_nor_wrong(sandbox, lost):
    def plan(talk):
        is_lost = talk.messages[0].text.startswith("Lose") and is_second(talk) == bool(lost)
        return None if is_lost else "<answer>5</answer>"

    class Loses(PlannedPolicy):
        """Answers one conversation at a time, so that only one is lost."""

        def reply(self, conversations, *, sampling):
            texts = [self.plan(talk) for talk in conversations]
            if None in texts:
                some = [None if text is None else Reply(text) for text in texts]
                raise PartialRepliesError("some are away", some)
            return [Reply(text) for text in texts]

    tasks = [task(0), task(2), replace(task(1), question="Lose me.")]
    found = second_point(Loses(plan), tasks, sandbox)["second look"]
    assert (found.accuracy, found.tasks) == (1.0, 2)


def test_no_figure_is_reported_if_everything_was_lost():
    policy = PlannedPolicy(lambda _: LOOK)
    with pytest.raises(EpisodesLostError, match="1 of 1 episodes were lost"):
        scale(policy, [task()], sandbox=AbsentSandbox(), turns=(2,), samples=(1,))


def test_a_lost_replay_does_not_decide(sandbox):
    policy = looks_then_says("5", "6", founded=(0, 1))
    first, second = (
        rollout(policy, [one], sandbox=sandbox, evidence=False)[0]
        for one in (task(), replace(task(), question=second_look("How many?", "5")))
    )
    assert not self_checked(first, second, AbsentSandbox()).is_valid
    assert self_checked(first, first, AbsentSandbox()) is first


def test_a_vote_is_graded_in_its_original_form(sandbox):
    lettered = replace(
        task(), answer="A", answer_kind=AnswerKind.CHOICE, choices=("red", "a dog", "blue")
    )
    points = scale(
        PlannedPolicy(lambda _: "<answer>A</answer>"),
        [lettered],
        sandbox=sandbox,
        turns=(1,),
        samples=(3,),
    )
    assert [one.accuracy for one in points] == [1.0, 1.0, 1.0]


def test_the_order_of_the_limits_does_not_change_a_look(sandbox):
    """The first look had as many turns as the second."""

    def plan(talk):
        return LOOK if talk.turn == 0 else "<answer>5</answer>"

    points = scale(PlannedPolicy(plan), [task()], sandbox=sandbox, turns=(3, 1), samples=(1,))
    assert [one.accuracy for one in points if one.method == "second look"] == [1.0]


@pytest.mark.parametrize("answer", ["3", "a. b", "two\nlines", "A first look gave: 3.", ""])
@pytest.mark.parametrize("question", ["How many?", "Two\nlines?", "A first look gave: 3."])
def test_a_program_recognizes_a_repeated_question(question, answer):
    assert plain_question(second_look(question, answer)) == question
    assert plain_question(question) == question


def test_a_custom_program_recognizes_a_repeated_question():
    @register_program
    def grey_level(question):
        return "print(1)" if question == "What is the grey level?" else None

    try:
        again = Message("user", (second_look("What is the grey level?", "7"),))
        assert program_for(question_of([again])) == "print(1)\n"
    finally:
        unregister_program("grey_level")
