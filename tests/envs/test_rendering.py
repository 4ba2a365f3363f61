import numpy as np
import pytest
from codedance.envs.visual_code import VisualCodeEnv
from sandbox.hostile_text import HOSTILE, controls_in

from .toys import InProcessSandbox, ToySuite, make_task, noise

SHOW = "```python\nprint('hello')\ndisplay(input_image)\n```"


def env_in(mode):
    env = VisualCodeEnv(ToySuite(), sandbox=InProcessSandbox(), render_mode=mode)
    env.reset(seed=0, options={"task_id": "toy/counting/train/3"})
    return env


def test_ansi_shows_the_question_and_then_each_turn():
    env = env_in("ansi")
    assert env.render() == "toy/counting/train/3\n[picture 24 x 16]\nHow many dots are there?"
    env.step(SHOW)
    text = env.render()
    assert text.startswith(f"turn 1 of 6\n{SHOW}\n<tool_response>\nhello\npicture 1, 24 x 16:")
    env.step("hm")
    assert env.render().endswith(
        "hm\nmalformed: neither code in a python fence nor an answer\nending: malformed"
    )


def test_a_frame_has_a_fixed_size_and_changes_with_the_turn():
    env = env_in("rgb_array")
    frames = [env.render()]
    for action in (SHOW, "```python\n1/0\n```", "<answer>3</answer>"):
        env.step(action)
        frames.append(env.render())
    assert {frame.shape for frame in frames} == {(576, 1024, 3)}
    assert {frame.dtype for frame in frames} == {np.dtype(np.uint8)}
    assert len({frame.tobytes() for frame in frames}) == 4


@pytest.mark.parametrize("text", ["\ud800", "日本語 " * 500, "\n" * 500, "\0\t\r", ""])
def test_any_text_can_be_drawn_and_printed(text, capsys):
    for mode in ("ansi", "rgb_array", "human"):
        env = env_in(mode)
        env.step(text)
        env.render()


def test_a_task_without_an_image_or_with_a_strip_can_be_drawn():
    env = env_in("rgb_array")
    for images in ((), (noise(400, 2),)):
        env.reset(options={"task": make_task(images=images)})
        assert env.render().shape == (576, 1024, 3)


def test_human_mode_prints_each_turn_automatically(capsys):
    env = env_in("human")
    assert "How many dots" in capsys.readouterr().out
    env.step(SHOW)
    assert "hello" in capsys.readouterr().out
    assert env.render() is None


@pytest.mark.parametrize("mode", ["ansi", "human"])
def test_no_text_of_model_task_or_code_can_control_a_terminal(mode, capsys):
    everything = "\n".join(HOSTILE)
    sandbox = InProcessSandbox()
    env = VisualCodeEnv(ToySuite(), sandbox=sandbox, render_mode=mode)
    env.reset(seed=0, options={"task": make_task(id=f"toy/{everything}", question=everything)})
    shown = [env.render()]
    for text in (f"```python\nprint({everything!r})\n```", everything):
        env.step(text)
        shown.append(env.render())
    printed = capsys.readouterr().out if mode == "human" else "".join(shown)
    assert "\\x1b]52;c;" in printed
    assert controls_in(printed) == []


def test_hostile_text_can_be_drawn():
    env = VisualCodeEnv(ToySuite(), sandbox=InProcessSandbox(), render_mode="rgb_array")
    for text in HOSTILE:
        env.reset(seed=0)
        env.step(text)
        assert env.render().shape == (576, 1024, 3)


def test_rendering_without_a_mode_names_the_argument_to_pass():
    env = env_in(None)
    with pytest.warns(UserWarning, match="ansi, rgb_array, human"):
        assert env.render() is None
