"""Two scripted policies: one ignores its tool (about 0), one depends on it (about 1)."""

import re

import pytest
from codedance.envs.suites.nano.suite import NanoSuite, make_task
from codedance.envs.types import Difficulty
from codedance.policies import load_policy, rollout
from codedance.policies.analysis.probe import crops_held, locate, probe, region_of, summarise
from codedance.policies.inference.answer_scorer import TokenAnswerScorer
from codedance.policies.interface import Reply
from codedance.policies.scripted.oracle import OraclePolicy
from PIL import Image

from ..players import task
from ..tiny import noise

TASKS = [make_task("count", Difficulty.MEDIUM, "test", number) for number in range(3)]
LOOK = "<code>\n```python\n{}\n```\n</code>"


class Planted:
    """Runs the oracle's program, then answers by its output, or from memory regardless of it."""

    system_prompt = ""

    def __init__(self, tasks, *, ignores_tool):
        self.id = "planted"
        self._oracle = OraclePolicy()
        self._truth = {one.question + str(hash(one.images[0].tobytes())): one for one in tasks}
        self._ignores_tool = ignores_tool

    def reply(self, conversations, *, sampling):
        replies = self._oracle.reply(conversations, sampling=sampling)
        return [
            Reply(f"<answer>{self._known(talk.messages)}</answer>")
            if self._ignores_tool and talk.messages[-1].text.startswith("<tool_response>")
            else reply
            for talk, reply in zip(conversations, replies, strict=True)
        ]

    def answer_log_probability(self, messages, before, answer):
        """Return the highest log-probability for its own answer."""
        number = re.search(r"<tool_response>\n(\d+)", messages[-1].text)
        says = self._known(messages) if self._ignores_tool else number and number[1]
        return -0.1 if says == answer else -8.0

    def _known(self, messages):
        opening = messages[0]
        return self._truth[opening.text + str(hash(opening.images[0].tobytes()))].answer


def probed(policy, tasks, sandbox, scorer=None):
    found = rollout(policy, tasks, sandbox=sandbox)
    return list(probe(policy, list(zip(tasks, found, strict=True)), sandbox=sandbox, scorer=scorer))


@pytest.mark.parametrize(("ignores_tool", "wanted"), [(True, 0.0), (False, 1.0)])
def test_the_two_policies_are_distinguished(sandbox, ignores_tool, wanted):
    policy = Planted(TASKS, ignores_tool=ignores_tool)
    figures = {one.change: one for one in summarise(probed(policy, TASKS, sandbox, policy))}
    assert set(figures) == {"withheld", "swapped"}  # a number is printed: nothing to blank
    for one in figures.values():
        assert (one.calls, one.accuracy) == (3, 1.0)
        assert one.dependence == wanted
        assert one.gain == pytest.approx(7.9 * wanted)


def test_blanking_matters_if_the_answer_is_read_from_a_crop(sandbox):
    tasks = [make_task("tag", Difficulty.MEDIUM, "test", number) for number in range(3)]
    figures = {one.change: one for one in summarise(probed(OraclePolicy(), tasks, sandbox))}
    assert figures["blanked"].dependence > 0.6
    assert figures["withheld"].dependence == 1.0
    assert figures["blanked"].gain != figures["blanked"].gain  # NaN: not measured


def test_variables_exist_when_the_rest_is_replayed(sandbox):
    class Remembering:
        id, system_prompt = "remembering", ""

        def reply(self, conversations, *, sampling):
            return [Reply(self.text(talk.messages)) for talk in conversations]

        def text(self, messages):
            asked = sum(message.role == "assistant" for message in messages)
            if asked < 2:
                return LOOK.format(("kept = 5\nprint(1)", "print(kept)")[asked])
            found = re.search(r"\n(\d+)\n", messages[-1].text)
            return f"<answer>{found[1] if found else 'lost'}</answer>"

    calls = probed(Remembering(), [task()], sandbox)
    first, second = calls
    assert (first.turn, first.was_right, first.is_right) == (0, True, True)
    assert (second.turn, second.was_right, second.is_right) == (1, True, False)


def test_episodes_without_calls_and_lost_ones_are_ignored(sandbox):
    class Direct:
        id, system_prompt = "direct", ""

        def reply(self, conversations, *, sampling):
            return [Reply("<answer>5</answer>") for _ in conversations]

    assert probed(Direct(), [task()], sandbox) == []
    assert summarise([]) == []


def test_a_real_policy_has_log_probabilities(sandbox, tiny_folder):
    policy = load_policy(str(tiny_folder))
    scorer = TokenAnswerScorer(policy)
    talk = rollout(OraclePolicy(), TASKS[:1], sandbox=sandbox)[0].conversation()[:-1]
    both = [scorer.answer_log_probability(talk, "<answer>", text) for text in ("5", "55")]
    assert all(value < 0.0 for value in both)
    assert both[0] != both[1]


def test_a_crop_is_found_where_it_was_cut_out():
    whole = noise(0)
    assert locate(whole.crop((3, 5, 20, 31)), whole) == (3, 5, 20, 31)
    assert locate(whole, whole) == (0, 0, 56, 56)
    assert locate(noise(1, 10, 10), whole) is None
    assert locate(noise(1, 70, 70), whole) is None
    assert locate(Image.new("RGB", (4, 4), "red"), Image.new("RGB", (9, 9), "red")) == (0, 0, 4, 4)


@pytest.mark.parametrize("family", ["digit", "tag"])
def test_the_oracles_crops_hold_the_truth_and_a_wrong_one_does_not(family, sandbox):
    tasks = [make_task(family, Difficulty.HARD, "test", number) for number in range(4)]
    found = rollout(OraclePolicy(), tasks, sandbox=sandbox)
    assert crops_held(list(zip(tasks, found, strict=True))) == [True] * 4

    class Corner(OraclePolicy):
        def reply(self, conversations, *, sampling):
            block = LOOK.format("input_image.crop((0, 0, 6, 6))")
            return [
                Reply(block if talk.turn == 0 else "<answer>0</answer>") for talk in conversations
            ]

    wrong = rollout(Corner(), tasks, sandbox=sandbox)
    assert crops_held(list(zip(tasks, wrong, strict=True))) == [False] * 4


def test_the_truths_region_never_reaches_an_observation(sandbox):
    one = make_task("digit", Difficulty.HARD, "test", 0)
    region = one.provenance["region"]
    assert region_of(one) == tuple(int(part) for part in region.split(","))
    (found,) = rollout(OraclePolicy(), [one], sandbox=sandbox)
    assert all(region not in message.text for message in found.conversation())
    assert region_of(make_task("count", Difficulty.HARD, "test", 0)) is None
    assert NanoSuite("test").task(one.id).provenance["region"] == region
