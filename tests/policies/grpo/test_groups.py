from collections.abc import Sequence
from dataclasses import replace

import pytest
from codedance.envs.rewards import difficulty_factor
from codedance.envs.types import Difficulty, Tokens
from codedance.policies.inference.partial_replies import PartialRepliesError
from codedance.policies.interface import Conversation, Reply, Sampling
from codedance.policies.rollouts.losses import EpisodesLostError
from codedance.policies.training.grpo.config import GRPOConfig
from codedance.policies.training.grpo.groups import GroupSampler, score
from codedance.sandbox.types import Sandbox

from ..players import AbsentSandbox, CountingSandbox, PlannedPolicy, code, task, trajectory

LOOK = "print(sum(input_image.getdata(), ())[:3])"


def seen(value: float, count: int) -> list:
    return [trajectory(accuracy=value) for _ in range(count)]


def test_reward_and_both_advantages_by_hand():
    # Two right, two wrong, no tools: rewards 1, 1, 0, 0; mean ½, std with n - 1 is 0.5774.
    group = score([*seen(1.0, 2), *seen(0.0, 2)], GRPOConfig(), sandbox=AbsentSandbox())
    expected = 0.5 / (1 / 3) ** 0.5
    assert group.advantages == pytest.approx((expected, expected, -expected, -expected))
    assert group.turn_advantages == ((0.0,),) * 4
    assert [one.reward for one in group.trajectories] == [1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("own", "penalty"), [(80, 0.0), (81, -0.05), (90, -0.5), (100, -1.0), (130, -1.0)]
)
def test_long_trajectories_are_penalised_within_the_buffer(own, penalty):
    # DAPO, eq. 13, with a limit of 100 tokens and a buffer of 20; tokens of others do not count.
    config = GRPOConfig(max_completion_length=100, overlong_buffer=20)
    tokens = Tokens((7,) * (own + 50), (0.0,) * (own + 50), (-1,) * 50 + (0,) * own)
    long = replace(trajectory(accuracy=1.0), tokens=tokens)
    lost = replace(trajectory(accuracy=None), tokens=tokens)
    group = score([long, *seen(1.0, 1), lost], config, sandbox=AbsentSandbox())
    first, short, missing = group.trajectories
    assert first.reward_terms["overlong"] == pytest.approx(penalty)
    assert first.reward == pytest.approx(1.0 + penalty)
    assert short.reward_terms["overlong"] == 0.0
    assert missing.reward_terms["overlong"] is None
    assert (
        "overlong"
        not in score(seen(1.0, 2), GRPOConfig(), sandbox=AbsentSandbox())
        .trajectories[0]
        .reward_terms
    )


def test_failed_turn_is_charged_only_on_its_own_turn():
    siblings = [trajectory(blocks=["a"]), trajectory(blocks=["b"], fails=True)]
    group = score(siblings, GRPOConfig(reward="bat"), sandbox=AbsentSandbox())
    # Returns 0 and -0.5: mean -0.25, population std 0.25, z = ±1; clipped to [-3, 0], times 0.2.
    assert group.turn_advantages == ((0.0, 0.0), (pytest.approx(-0.2), 0.0))


def test_group_of_equals_is_flat():
    group = score(seen(1.0, 4), GRPOConfig(), sandbox=AbsentSandbox())
    assert group.advantages == (0.0,) * 4
    assert group.is_flat
    assert not group.is_lost


def test_a_group_with_only_turn_advantages_is_not_flat():
    # All wrong with equal rewards under the preset, but one turn failed.
    siblings = [
        trajectory(accuracy=0.0, blocks=["a"]),
        trajectory(accuracy=0.0, blocks=["b"], fails=True),
    ]
    group = score(siblings, GRPOConfig(), sandbox=AbsentSandbox())
    assert group.advantages == (0.0, 0.0)
    assert not group.is_flat


def test_infrastructure_failures_are_excluded_from_every_statistic():
    siblings = [trajectory(accuracy=1.0), trajectory(accuracy=0.0)]
    lost = trajectory(accuracy=None)
    whole = score([*siblings, lost], GRPOConfig(), sandbox=AbsentSandbox())
    alone = score(siblings, GRPOConfig(), sandbox=AbsentSandbox())
    assert whole.advantages == (*alone.advantages, 0.0)
    assert whole.trajectories[2].reward is None


def test_group_with_one_scored_member_is_lost():
    siblings = [trajectory(accuracy=1.0), *[trajectory(accuracy=None)] * 3]
    group = score(siblings, GRPOConfig(), sandbox=AbsentSandbox())
    assert group.is_lost
    assert group.advantages == (0.0,) * 4


@pytest.mark.parametrize(
    ("accuracies", "is_asked"),
    [
        ((0.0, 0.0, 0.0, 0.0), False),  # all wrong: nothing is paid
        ((1.0, 0.0, 0.0, 0.0), True),
        ((1.0, 1.0, 1.0, 0.0), False),  # d(0.75) < 0: every call costs, evidence or not
        ((1.0, 1.0, 1.0, 1.0), False),
    ],
)
def test_evidence_is_recorded_only_if_it_matters(
    sandbox: Sandbox, accuracies: Sequence[float], is_asked: bool
):
    counting = CountingSandbox(sandbox)
    siblings = [trajectory(accuracy=value, blocks=[LOOK]) for value in accuracies]
    group = score(siblings, GRPOConfig(reward="bat"), sandbox=counting)
    assert (counting.sessions > 0) is is_asked
    recorded = [one.tool_turns[0].has_evidence is not None for one in group.trajectories]
    assert recorded == [is_asked] * 4


def test_presets_without_evidence_never_replay(sandbox: Sandbox):
    counting = CountingSandbox(sandbox)
    siblings = [trajectory(accuracy=value, blocks=[LOOK]) for value in (1.0, 0.0)]
    for reward in ("outcome", "tool_bonus", "bat_paper"):
        score(siblings, GRPOConfig(reward=reward), sandbox=counting)
    assert counting.sessions == 0


def test_replay_lost_by_the_sandbox_excludes_its_trajectory():
    siblings = [trajectory(accuracy=1.0, blocks=[LOOK]), *seen(0.0, 2)]
    group = score(siblings, GRPOConfig(reward="bat"), sandbox=AbsentSandbox())
    assert [one.is_valid for one in group.trajectories] == [False, True, True]
    assert group.is_flat


def acts(one: Conversation) -> str:
    """Every other sibling reads the image; the others immediately answer wrongly."""
    if one.turn == 0 and one.seed % 2:
        return code("print(sorted(input_image.getdata())[0], input_image.getpixel((3, 5)))")
    return f"<answer>{5 if one.seed % 2 else 0}</answer>"


def test_call_with_evidence_is_paid_by_the_difficulty_factor(sandbox: Sandbox):
    config = GRPOConfig(tasks_per_step=1, num_generations=8, reward="bat", seed=5)
    kept, _ = GroupSampler([task()], config, sandbox=sandbox).sample(PlannedPolicy(acts), 0)
    (group,) = kept
    right = [one for one in group.trajectories if one.accuracy == 1.0]
    accuracy = len(right) / 8
    assert 0.0 < accuracy < 0.67
    paid = difficulty_factor(accuracy) * 1.5
    assert [one.reward_terms["tool_sequence"] for one in right] == pytest.approx(
        [paid] * len(right)
    )


def test_the_order_of_tasks_depends_only_on_seed_and_count(sandbox: Sandbox):
    tasks = [task(index) for index in range(5)]
    config = GRPOConfig(tasks_per_step=2, num_generations=2, max_redraws=0)
    policy = PlannedPolicy(lambda _: "<answer>1</answer>")

    def drawn(sampler: GroupSampler, steps: Sequence[int]) -> list[str]:
        groups = [group for step in steps for group in sampler.sample(policy, step)[0]]
        return [group.trajectories[0].task_id for group in groups]

    whole = drawn(GroupSampler(tasks, config, sandbox=sandbox), range(5))
    resumed = drawn(GroupSampler(tasks, config, sandbox=sandbox, drawn=6), [3, 4])
    assert whole[6:] == resumed
    assert sorted(whole[:5]) == sorted(whole[5:]) == [one.id for one in tasks]


def test_easy_tasks_are_drawn_with_the_configured_share(sandbox: Sandbox):
    easy = [replace(task(index), difficulty=Difficulty.EASY) for index in range(3)]
    tasks = [*easy, *(task(index) for index in range(3, 8))]
    policy = PlannedPolicy(lambda _: "<answer>1</answer>")

    def drawn(share: float | None, start: int = 0) -> list[str]:
        config = GRPOConfig(
            tasks_per_step=10 - start, num_generations=2, max_redraws=0, easy_share=share
        )
        groups, _ = GroupSampler(tasks, config, sandbox=sandbox, drawn=start).sample(policy, 0)
        return [group.trajectories[0].task_id for group in groups]

    ids = {one.id for one in easy}
    # Draw i is an easy one if floor(0.6 (i + 1)) exceeds floor(0.6 i): at 1, 3, 4, 6, 8, 9.
    assert [place for place, one in enumerate(drawn(0.6)) if one in ids] == [1, 3, 4, 6, 8, 9]
    assert {one for one in drawn(0.6) if one in ids} == ids
    assert drawn(0.6)[7:] == drawn(0.6, start=7)
    assert set(drawn(1.0)) == ids
    assert not ids & set(drawn(0.0))
    assert len(set(drawn(None)) - ids) == 5


def test_share_of_easy_tasks_above_one_is_rejected():
    with pytest.raises(ValueError, match=r"easy_share must be within 0 and 1, got 1\.5"):
        GRPOConfig(easy_share=1.5)


def test_flat_groups_are_replaced_by_other_tasks_within_the_bound(sandbox: Sandbox):
    tasks = [task(index) for index in range(12)]
    policy = PlannedPolicy(lambda _: "<answer>1</answer>")  # always wrong: every group is flat
    for redraws in (0, 2):
        config = GRPOConfig(tasks_per_step=3, num_generations=2, max_redraws=redraws)
        kept, replaced = GroupSampler(tasks, config, sandbox=sandbox).sample(policy, 0)
        assert (len(kept), len(replaced)) == (3, 3 * redraws)
        ids = {group.trajectories[0].task_id for group in [*kept, *replaced]}
        assert len(ids) == 3 + 3 * redraws


def test_mixed_groups_are_kept_and_not_redrawn(sandbox: Sandbox):
    tasks = [task(index) for index in range(12)]
    policy = PlannedPolicy(lambda one: f"<answer>{5 if one.seed % 2 else 0}</answer>")
    config = GRPOConfig(tasks_per_step=4, num_generations=8, max_redraws=5)
    kept, replaced = GroupSampler(tasks, config, sandbox=sandbox).sample(policy, 0)
    assert (len(kept), len(replaced)) == (4, 0)
    assert not any(group.is_flat for group in kept)


def test_a_step_that_lost_every_episode_is_an_error_with_the_reason(sandbox: Sandbox):
    tasks = [task(index) for index in range(3)]
    config = GRPOConfig(tasks_per_step=2, num_generations=2, max_redraws=1)
    away = PlannedPolicy(lambda _: None)
    with pytest.raises(EpisodesLostError, match=r"step 4: all 8 episodes .*: the server is away"):
        GroupSampler(tasks, config, sandbox=sandbox).sample(away, 4)
    look = PlannedPolicy(lambda _: code(LOOK))
    with pytest.raises(EpisodesLostError, match="all 8 episodes were lost"):
        GroupSampler(tasks, config, sandbox=AbsentSandbox()).sample(look, 4)


def test_a_step_that_lost_some_episodes_continues(sandbox: Sandbox):
    config = GRPOConfig(tasks_per_step=1, num_generations=2, max_redraws=0)
    answers = iter(["<answer>5</answer>"])

    class OneAnswer(PlannedPolicy):
        def reply(self, conversations: Sequence[Conversation], *, sampling: Sampling) -> list:
            replies = [Reply(text) if (text := next(answers, None)) else None for _ in "ab"]
            raise PartialRepliesError("half", replies)

    kept, _ = GroupSampler([task()], config, sandbox=sandbox).sample(OneAnswer(lambda _: ""), 0)
    assert [one.accuracy for one in kept[0].trajectories] == [1.0, None]
