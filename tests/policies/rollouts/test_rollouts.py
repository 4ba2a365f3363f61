from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import pytest
from codedance.envs.episode import Episode
from codedance.envs.grading import GradingError
from codedance.envs.rewards import score_group
from codedance.envs.types import AnswerKind, Ending, Trajectory
from codedance.policies import rollout
from codedance.policies.inference.partial_replies import PartialRepliesError
from codedance.policies.inference.vlm import VisionLanguagePolicy
from codedance.policies.interface import Conversation, Reply, Sampling
from codedance.policies.models.model_folder import ModelNotes
from codedance.policies.models.token_model import TokenModel
from codedance.policies.rollouts.runner import finish_episode
from codedance.sandbox import Execution, SandboxError
from codedance.sandbox.types import Sandbox, SandboxUnavailableError, Session, SessionState
from PIL import Image

from ..players import AbsentSandbox, CountingSandbox, PlannedPolicy, code, task


def look_then_answer(one: Conversation) -> str:
    if one.turn == 0:
        return code("print(2 + 3)")
    return f"<answer>{one.messages[-1].text.split()[1]}</answer>"


def test_code_runs_and_its_output_is_used(sandbox: Sandbox):
    (found,) = rollout(PlannedPolicy(look_then_answer), [task()], sandbox=sandbox)
    assert [turn.action.kind for turn in found.turns] == ["code", "answer"]
    assert (found.ending, found.answer, found.accuracy) == (Ending.ANSWERED, "5", 1.0)


def test_all_samples_of_a_task_are_adjacent_each_with_its_own_seed(sandbox: Sandbox):
    policy = PlannedPolicy(lambda one: f"<answer>{one.seed % 7}</answer>")
    found = rollout(policy, [task(0), task(1)], samples=3, sandbox=sandbox)
    assert [one.task_id for one in found] == ["toy/0"] * 3 + ["toy/1"] * 3
    assert len({one.seed for one in found}) == 6


def test_seed_depends_on_the_task_and_not_on_its_position(sandbox: Sandbox):
    policy = PlannedPolicy(lambda _: "<answer>1</answer>")
    first = rollout(policy, [task(0), task(1)], sandbox=sandbox, seed=3)
    alone = rollout(policy, [task(1)], sandbox=sandbox, seed=3)
    other = rollout(policy, [task(1)], sandbox=sandbox, seed=4)
    assert first[1].seed == alone[0].seed != other[0].seed


def test_a_repeated_task_is_sampled_again(sandbox: Sandbox):
    policy = PlannedPolicy(lambda _: "<answer>1</answer>")
    found = rollout(policy, [task(0), task(0)], samples=2, sandbox=sandbox)
    assert len({one.seed for one in found}) == 4


def test_batches_do_not_exceed_their_size(sandbox: Sandbox):
    policy = PlannedPolicy(lambda _: "<answer>1</answer>")
    rollout(policy, [task(i) for i in range(5)], sandbox=sandbox, batch_size=2)
    assert policy.batches == [2, 2, 1]


def test_every_trajectory_is_reported_at_the_end_of_its_batch(sandbox: Sandbox):
    reported: list[Trajectory] = []
    policy = PlannedPolicy(lambda _: "<answer>1</answer>")
    found = rollout(policy, [task(0), task(1)], sandbox=sandbox, on_trajectory=reported.append)
    assert reported == found


def test_unavailable_model_loses_the_episode_to_infrastructure(sandbox: Sandbox):
    policy = PlannedPolicy(lambda one: code("1") if one.turn == 0 else None)
    (found,) = rollout(policy, [task()], sandbox=sandbox)
    assert (found.ending, found.accuracy, len(found.turns)) == (Ending.INFRASTRUCTURE, None, 1)


def test_only_the_conversations_without_a_reply_are_lost(sandbox: Sandbox):
    class HalfAway(PlannedPolicy):
        def reply(self, conversations, *, sampling):
            replies = [Reply("<answer>5</answer>"), None]
            raise PartialRepliesError("half", replies[: len(conversations)])

    found = rollout(HalfAway(lambda _: ""), [task(0), task(1)], sandbox=sandbox)
    assert [one.ending for one in found] == [Ending.ANSWERED, Ending.INFRASTRUCTURE]


def test_error_in_a_policys_own_code_is_not_infrastructure(sandbox: Sandbox):
    def broken(_: Conversation) -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        rollout(PlannedPolicy(broken), [task()], sandbox=sandbox)


def test_unavailable_sandbox_loses_the_episode_to_infrastructure():
    (found,) = rollout(PlannedPolicy(lambda _: code("1")), [task()], sandbox=AbsentSandbox())
    assert (found.ending, found.accuracy) == (Ending.INFRASTRUCTURE, None)


class LackingSandbox(AbsentSandbox):
    """A sandbox whose backend is missing on this machine, at first or from a later session."""

    def __init__(self, real: Sandbox | None = None, sessions: int = 0) -> None:
        self.real = real
        self.left = sessions

    def session(self, images: Sequence[Image.Image] = (), *, seed: int = 0) -> Session:
        self.left -= 1
        if self.real is None or self.left < 0:
            raise SandboxUnavailableError("no engine answers; start it")
        return self.real.session(images, seed=seed)


def test_missing_backend_is_an_error_and_loses_no_episode():
    with pytest.raises(SandboxUnavailableError, match="no engine answers; start it"):
        rollout(PlannedPolicy(lambda _: code("1")), [task()], sandbox=LackingSandbox())


def test_backend_that_disappears_before_the_replays_is_an_error_and_loses_no_episode(
    sandbox: Sandbox,
):
    look = code("print(input_image.getpixel((0, 0)))")
    policy = PlannedPolicy(lambda one: look if one.turn == 0 else "<answer>5</answer>")
    with pytest.raises(SandboxUnavailableError, match="start it"):
        rollout(policy, [task()], sandbox=LackingSandbox(sandbox, sessions=1))


def test_backend_that_disappears_within_an_episode_is_an_error(sandbox: Sandbox):
    class Gone:
        def run(self, code: str) -> Execution:
            raise SandboxError("the session is gone")

        def snapshot(self) -> SessionState:
            raise SandboxUnavailableError("no engine answers; start it")

        def close(self) -> None:
            """Nothing is open."""

    class Going(AbsentSandbox):
        def session(self, images: Sequence[Image.Image] = (), *, seed: int = 0) -> Session:
            return cast("Session", Gone())

    with pytest.raises(SandboxUnavailableError, match="start it"):
        rollout(PlannedPolicy(lambda _: code("1")), [task()], sandbox=Going())


def test_unreadable_true_answer_is_an_error_and_loses_no_episode(sandbox: Sandbox):
    unreadable = replace(task(), answer="many", answer_kind=AnswerKind.INTEGER)
    with pytest.raises(GradingError, match="holds no integer"):
        rollout(PlannedPolicy(lambda _: "<answer>5</answer>"), [unreadable], sandbox=sandbox)


def test_turn_limit_ends_an_episode_that_never_answers(sandbox: Sandbox):
    policy = PlannedPolicy(lambda _: code("print(1)"))
    (found,) = rollout(policy, [task()], sandbox=sandbox, max_turns=3)
    assert found.ending is Ending.TURN_LIMIT
    assert [turn.is_tool_turn for turn in found.turns] == [True, True, False]


def test_policys_own_system_prompt_is_used(sandbox: Sandbox):
    policy = PlannedPolicy(lambda _: "<answer>1</answer>")
    assert rollout(policy, [task()], sandbox=sandbox)[0].opening[0].role == "user"
    policy.system_prompt = "Be brief."
    assert rollout(policy, [task()], sandbox=sandbox)[0].opening[0].text == "Be brief."


def test_models_token_limit_and_image_size_are_used(tiny_model: TokenModel, sandbox: Sandbox):
    notes = ModelNotes(system_prompt="", max_pixels=28 * 28)
    policy = VisionLanguagePolicy(tiny_model, policy_id="tiny", notes=notes)
    found = rollout(
        policy, [task(0), task(1)], samples=2, sandbox=sandbox, sampling=Sampling(max_new_tokens=8)
    )
    for one in found:
        assert one.opening[0].images[0].size == (28, 28)
        assert one.tokens is not None
        assert sum(one.tokens.mask) <= 8
        assert one.ending in {Ending.TOKEN_LIMIT, Ending.MALFORMED}


def test_batch_size_changes_no_trajectory(tiny_model: TokenModel, sandbox: Sandbox):
    policy = VisionLanguagePolicy(tiny_model, policy_id="tiny", notes=ModelNotes(""))
    ids = [
        [
            one.tokens.ids if one.tokens else ()
            for one in rollout(
                policy,
                [task(0), task(1)],
                samples=3,
                sandbox=sandbox,
                batch_size=size,
                sampling=Sampling(max_new_tokens=8),
            )
        ]
        for size in (6, 1)
    ]
    assert ids[0] == ids[1]


def test_an_open_episode_can_be_finished(sandbox: Sandbox):
    with Episode(task(), sandbox, system_prompt="") as episode:
        episode.step(code("print(2 + 3)"))
        found = finish_episode(PlannedPolicy(look_then_answer), episode)
    assert (len(found.turns), found.answer) == (2, "5")


@pytest.mark.parametrize("options", [{"samples": 0}, {"batch_size": 0}])
def test_an_empty_request_is_rejected(sandbox: Sandbox, options: dict[str, int]):
    with pytest.raises(ValueError, match="at least 1"):
        rollout(PlannedPolicy(look_then_answer), [task()], sandbox=sandbox, **options)


def test_a_rollouts_trajectories_can_be_scored_as_a_group(sandbox):
    """Evidence for the preset bat is recorded by default; without it there is an error."""
    policy = PlannedPolicy(look_then_answer)
    found = rollout(policy, [task()], samples=2, sandbox=sandbox)
    assert [turn.has_evidence for one in found for turn in one.tool_turns] != [None, None]
    terms = score_group(found, reward="bat")
    assert [set(one) for one in terms] == [{"accuracy", "format", "tool_sequence", "tool_turn"}] * 2
    bare = rollout(policy, [task()], samples=2, sandbox=sandbox, evidence=False)
    assert {turn.has_evidence for one in bare for turn in one.tool_turns} == {None}


class Watched(CountingSandbox):
    """Records the seed of each session."""

    def __init__(self, real: Sandbox) -> None:
        super().__init__(real)
        self.seeds: list[int] = []

    def session(self, images: Sequence[Image.Image] = (), *, seed: int = 0) -> Session:
        self.seeds.append(seed)
        return super().session(images, seed=seed)


def test_siblings_with_the_same_blocks_share_three_replays(sandbox: Sandbox):
    look = code("print(input_image.getpixel((0, 0)))")
    policy = PlannedPolicy(lambda one: look if one.turn == 0 else "<answer>5</answer>")
    watched = Watched(sandbox)
    found = rollout(policy, [task()], samples=6, sandbox=watched)
    assert [one.turns[0].has_evidence for one in found] == [True] * 6
    assert len({one.seed for one in found}) == 6
    assert watched.seeds == [0] * (6 + 3)  # a seed of their own would give the task's id away


def test_single_samples_can_be_replayed_exactly(sandbox: Sandbox):
    tasks = [task(index) for index in range(2)]
    policy = PlannedPolicy(lambda one: f"<answer>{one.seed}</answer>")
    whole = rollout(policy, tasks, samples=3, sandbox=sandbox, seed=4)
    chosen = {tasks[0].id: [2], tasks[1].id: [0, 1]}
    part = rollout(policy, tasks, samples=chosen, sandbox=sandbox, seed=4)
    assert [one.answer for one in part] == [whole[n].answer for n in (2, 3, 4)]


def test_every_lost_episode_is_reported_with_its_reason(sandbox: Sandbox, caplog):
    reported: list[str] = []
    away = PlannedPolicy(lambda _: None)
    rollout(
        away, [task()], samples=3, sandbox=sandbox, on_lost=lambda one: reported.append(str(one))
    )
    assert reported == ["the server is away"] * 3
    assert "lost" not in caplog.text
    rollout(away, [task()], samples=3, sandbox=sandbox)
    assert "3 of 3 episodes were lost: the server is away" in caplog.text
    look = PlannedPolicy(lambda _: code("print(1)"))
    reported.clear()
    rollout(look, [task()], sandbox=AbsentSandbox(), on_lost=lambda one: reported.append(str(one)))
    assert len(reported) == 1
    assert reported[0] != "None"


class Clock:
    """A clock that advances by a second at every reading."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 1.0
        return self.now


def test_the_time_of_a_batch_counts_for_each_of_its_episodes(sandbox, monkeypatch):
    monkeypatch.setattr("codedance.policies.rollouts.runner.time", Clock())
    policy = PlannedPolicy(look_then_answer)
    played = rollout(policy, [task(n) for n in range(3)], sandbox=sandbox, evidence=False)
    assert [[turn.generation_seconds for turn in one.turns] for one in played] == [[1.0, 1.0]] * 3


def test_a_policys_own_measurement_takes_precedence_over_the_batchs(sandbox):
    class Measured(PlannedPolicy):
        def reply(self, conversations, *, sampling):
            return [
                Reply("<answer>5</answer>", seconds=0.25 * (one.seed % 2)) for one in conversations
            ]

    played = rollout(Measured(look_then_answer), [task()], samples=4, sandbox=sandbox)
    for one in played:
        assert [turn.generation_seconds for turn in one.turns] == [0.25 * (one.seed % 2)]


def test_with_slots_a_turn_lasts_from_joining_to_its_last_token(tiny_model, sandbox, monkeypatch):
    monkeypatch.setattr("codedance.policies.rollouts.scheduler.time", Clock())
    policy = VisionLanguagePolicy(tiny_model, policy_id="tiny")
    played = rollout(
        policy, [task()], sandbox=sandbox, sampling=Sampling(max_new_tokens=4), evidence=False
    )
    assert [turn.generation_seconds for one in played for turn in one.turns] == [1.0]


def test_times_do_not_affect_equality(sandbox):
    assert Reply("a", seconds=1.0) == Reply("a", seconds=2.0) == Reply("a")
    assert Reply("a").timed(3.0).timed(4.0).seconds == 3.0


def test_an_episode_without_measurements_has_no_times(sandbox):
    with Episode(task(), sandbox) as episode:
        episode.step("<answer>5</answer>")
        assert episode.trajectory("me").turns[0].generation_seconds is None
