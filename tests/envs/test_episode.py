import pytest
from codedance.envs.episode import Episode
from codedance.envs.protocol import LAST_TURN, system_prompt
from codedance.envs.types import Ending, Tokens
from codedance.sandbox import Outcome, SandboxError, open_sandbox

from .toys import InProcessSandbox, make_task, noise


def code(block):
    return f"<think>t</think><code>\n```python\n{block}\n```\n</code>"


def test_the_opening_is_system_message_images_and_question(task, sandbox):
    episode = Episode(task, sandbox)
    system, question = episode.messages
    assert (system.role, system.text) == ("system", system_prompt("code"))
    assert question.role == "user"
    assert question.parts == (*episode.images, task.question)


def test_an_empty_system_prompt_adds_no_message(task, sandbox):
    assert [one.role for one in Episode(task, sandbox, system_prompt="").messages] == ["user"]
    assert Episode(task, sandbox, system_prompt="Hi").messages[0].text == "Hi"


def test_an_answer_ends_the_episode_and_is_graded(task, sandbox):
    episode = Episode(task, sandbox)
    turn = episode.step("<answer>5</answer>")
    assert turn.reply is None
    one = episode.trajectory("me")
    assert (one.ending, one.answer, one.accuracy) == (Ending.ANSWERED, "5", 1.0)
    assert (one.task_id, one.policy_id) == (task.id, "me")


def test_code_runs_and_gets_a_reply_and_variables_persist(task, sandbox):
    with Episode(task, sandbox) as episode:
        episode.step(code("x = 5"))
        turn = episode.step(code("print(x)"))
        assert turn.execution.stdout == "5\n"
        assert turn.reply.text == "<tool_response>\n5\n</tool_response>"
        assert [one.role for one in episode.messages[2:]] == ["assistant", "user"] * 2
        assert episode.messages[-1] is turn.reply


def test_a_failed_block_changes_nothing(task, sandbox):
    with Episode(task, sandbox) as episode:
        episode.step(code("x = 5"))
        assert episode.step(code("x = 6\n1/0")).has_failed
        assert episode.step(code("print(x)")).execution.stdout == "5\n"


def test_a_malformed_turn_ends_the_episode_as_wrong(task, sandbox):
    episode = Episode(task, sandbox)
    episode.step("I do not know.")
    one = episode.trajectory("me")
    assert (one.ending, one.answer, one.accuracy) == (Ending.MALFORMED, None, 0.0)


def test_the_reply_before_the_last_turn_requests_an_answer_and_code_in_the_last_is_not_run(
    task, sandbox
):
    with Episode(task, sandbox, max_turns=3) as episode:
        assert LAST_TURN not in episode.step(code("print(1)")).reply.text
        assert episode.step(code("print(2)")).reply.text.endswith(LAST_TURN)
        last = episode.step(code("print(3)"))
    assert (last.execution, last.reply) == (None, None)
    one = episode.trajectory("me")
    assert (one.ending, one.accuracy, len(one.tool_turns)) == (Ending.TURN_LIMIT, 0.0, 2)


def test_an_answer_in_the_last_turn_counts(task, sandbox):
    episode = Episode(task, sandbox, max_turns=1)
    episode.step("<answer>5</answer>")
    assert episode.trajectory("me").accuracy == 1.0


def test_a_malformed_last_turn_is_malformed(task, sandbox):
    episode = Episode(task, sandbox, max_turns=1)
    episode.step("hm")
    assert episode.ending is Ending.MALFORMED


def test_a_token_limit_ends_the_episode_as_wrong_and_keeps_the_text(task, sandbox):
    episode = Episode(task, sandbox)
    episode.cut("<think>so long")
    one = episode.trajectory("me", Tokens((1,), (0.0,), (0,)))
    assert (one.ending, one.accuracy, one.turns[0].text) == (
        Ending.TOKEN_LIMIT,
        0.0,
        "<think>so long",
    )
    assert one.tokens.mask == (True,)
    bare = Episode(task, sandbox)
    bare.cut()
    assert bare.trajectory("me").turns == ()


def test_an_infrastructure_failure_is_not_scored(task, sandbox):
    episode = Episode(task, sandbox)
    episode.fail()
    one = episode.trajectory("me")
    assert (one.ending, one.accuracy, one.is_valid) == (Ending.INFRASTRUCTURE, None, False)


def test_there_is_no_step_after_the_ending_and_no_trajectory_before(task, sandbox):
    episode = Episode(task, sandbox)
    with pytest.raises(RuntimeError, match="has not ended"):
        episode.trajectory("me")
    episode.step("<answer>5</answer>")
    for act in (lambda: episode.step("<answer>5</answer>"), episode.cut):
        with pytest.raises(RuntimeError, match="over"):
            act()


def test_a_session_is_opened_at_the_first_block_and_closed_at_the_end(task, sandbox):
    episode = Episode(task, sandbox)
    assert sandbox.opened == 0
    episode.step(code("print(1)"))
    assert (sandbox.opened, len(sandbox.open_sessions)) == (1, 1)
    episode.step("<answer>5</answer>")
    assert len(sandbox.open_sessions) == 0
    episode.close()
    episode.close()


def test_a_lost_session_is_rebuilt_by_replay(task, sandbox):
    with Episode(task, sandbox) as episode:
        episode.step(code("x = seeded()"))
        episode.step(code("print(x)"))
        sandbox.lose_sessions()
        turn = episode.step(code("print(x)"))
        assert turn.execution.stdout == episode.turns[1].execution.stdout
        assert episode.ending is None


def test_a_sandbox_that_stays_unavailable_ends_the_episode_as_infrastructure(task, sandbox):
    with Episode(task, sandbox) as episode:
        episode.step(code("x = 1"))
        sandbox.is_down = True
        turn = episode.step(code("print(x)"))
    assert (turn.execution, turn.reply) == (None, None)
    assert episode.trajectory("me").ending is Ending.INFRASTRUCTURE


class _LosesEach(InProcessSandbox):
    def session(self, images=(), *, seed=0):
        opened = super().session(images, seed=seed)
        opened.is_lost = True
        return opened

    def restore(self, state, images=()):
        opened = super().restore(state, images)
        opened.is_lost = True
        return opened


def test_a_session_is_rebuilt_only_once(task):
    sandbox = _LosesEach()
    with Episode(task, sandbox) as episode:
        episode.step(code("print(1)"))
    assert episode.ending is Ending.INFRASTRUCTURE
    assert sandbox.opened == 2


def test_a_session_that_model_code_kills_is_not_infrastructure(task):
    with open_sandbox("local") as sandbox, Episode(task, sandbox) as episode:
        turn = episode.step(code("import os\nos._exit(1)"))
        assert turn.execution.outcome is Outcome.KILLED
        assert episode.step(code("print('alive')")).execution.stdout == "alive\n"


READ_SEED = """
import random, sys
frame, seeds = sys._getframe().f_back, []
while frame:
    seeds += [int(frame.f_locals["seed"])] if "seed" in frame.f_locals else []
    frame = frame.f_back
print(seeds, random.getstate()[1][:3])
"""


def test_code_cannot_find_the_task_by_its_seed():
    """An episode's seed is a plain hash of the task's id: fast to search for."""
    with open_sandbox("local") as sandbox:
        seen = set()
        for name, seed in (("a", 1), ("b", 2)):
            with Episode(make_task(id=name), sandbox, seed=seed) as episode:
                seen.add(episode.step(code(READ_SEED)).execution.stdout)
    assert len(seen) == 1
    assert seen.pop().startswith("[0] ")


def test_episodes_continue_from_a_state_any_number_of_times(task, sandbox):
    episode = Episode(task, sandbox, seed=3)
    episode.step(code("x = seeded()"))
    state = episode.snapshot()
    outputs = []
    for _ in range(2):
        with Episode(task, sandbox) as other:
            other.resume(state)
            assert len(other.messages) == len(episode.messages)
            outputs.append(other.step(code("print(x)")).execution.stdout)
            assert other.seed == 3
    assert outputs == [episode.step(code("print(x)")).execution.stdout] * 2
    assert len(state.turns) == 1
    episode.close()


def test_a_state_before_any_code_has_no_session(task, sandbox):
    episode = Episode(task, sandbox)
    state = episode.snapshot()
    assert state.session is None
    with Episode(task, sandbox) as other:
        other.resume(state)
        other.resume(other.snapshot())
        assert other.step(code("print(1)")).execution.is_ok


def test_the_policy_and_its_code_get_the_same_small_image(sandbox):
    task = make_task(images=(noise(200, 100),))
    with Episode(task, sandbox, max_pixels=5_000) as episode:
        size = episode.messages[-1].images[0].size
        assert size == (100, 50)
        assert episode.step(code("print(input_image.size)")).execution.stdout == f"{size}\n"


def test_a_task_without_an_image_can_be_played(sandbox):
    with Episode(make_task(images=()), sandbox) as episode:
        assert episode.step(code("print(2 + 3)")).execution.stdout == "5\n"


def test_a_box_shows_its_crop_and_an_empty_one_fails(task, sandbox):
    with Episode(task, sandbox, interface="box") as episode:
        crop = episode.step("<box>1, 2, 11, 900</box>")
        assert crop.execution.images[0].size == (10, 14)
        assert episode.step("<box>11, 2, 1, 9</box>").has_failed


def test_arguments_out_of_range_are_rejected(task, sandbox):
    with pytest.raises(ValueError, match="max_turns must be at least 1"):
        Episode(task, sandbox, max_turns=0)
    with pytest.raises(ValueError, match="one of code, box, text"):
        Episode(task, sandbox, interface="cod")


def test_a_session_that_cannot_be_closed_raises_nothing(task, sandbox):
    episode = Episode(task, sandbox)
    episode.step(code("print(1)"))

    def close():
        raise SandboxError("gone")

    next(iter(sandbox.open_sessions)).close = close
    episode.close()
    assert episode.ending is None
