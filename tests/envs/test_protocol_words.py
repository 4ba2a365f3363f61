import pytest
from codedance.envs.episode import Episode
from codedance.envs.parsing import INTERFACES, parse_action
from codedance.envs.protocol import LAST_TURN, question_message, system_prompt, tool_reply
from codedance.sandbox import Execution, Outcome
from PIL import Image

from .toys import make_task, noise


def reply(execution, turns_left=3):
    return tool_reply(execution, turns_left=turns_left)


def test_the_reply_is_only_the_printed_output():
    assert reply(Execution(Outcome.OK, stdout="5\n")).parts == (
        "<tool_response>\n5\n</tool_response>",
    )


def test_missing_output_is_reported():
    assert reply(Execution(Outcome.OK)).text == "<tool_response>\n(no output)\n</tool_response>"


def test_output_is_followed_by_warnings_and_the_error():
    execution = Execution(Outcome.ERROR, stdout="a\n", stderr="w\n", error="NameError: x, line 3")
    assert reply(execution).text == (
        "<tool_response>\na\nstderr: w\nNameError: x, line 3\n</tool_response>"
    )


@pytest.mark.parametrize(("most", "size"), [(1200, (40, 30)), (1199, (39, 29)), (300, (20, 15))])
def test_a_shown_image_is_within_the_pixels_of_the_environment(most, size):
    execution = Execution(Outcome.OK, images=(noise(40, 30),))
    message = tool_reply(execution, turns_left=3, max_pixels=most)
    assert [image.size for image in message.images] == [size]
    assert "picture 1, 40 x 30:" in message.text


def test_each_image_follows_its_caption():
    parts = reply(Execution(Outcome.OK, stdout="a\n", images=(noise(40, 30), noise(50, 60)))).parts
    assert parts[0] == "<tool_response>\na\npicture 1, 40 x 30:"
    assert parts[2] == "picture 2, 50 x 60:"
    assert [parts[1].size, parts[3].size] == [(40, 30), (50, 60)]
    assert parts[4] == "</tool_response>"


def test_a_tiny_image_is_enlarged_and_a_strip_is_omitted():
    images = (noise(2, 1), Image.new("RGB", (201, 1)), Image.new("RGB", (200, 1)))
    message = reply(Execution(Outcome.OK, images=images))
    assert [image.size for image in message.images] == [(224, 112), (22400, 112)]
    assert "(not shown: one side is over 200 times the other)" in message.text


def test_only_the_reply_before_the_last_turn_requests_an_answer():
    execution = Execution(Outcome.OK, stdout="5")
    assert reply(execution, 1).text == f"<tool_response>\n5\n</tool_response>\n{LAST_TURN}"
    assert LAST_TURN not in reply(execution, 2).text


def test_the_message_is_the_images_followed_by_the_question():
    picture = noise()
    assert question_message("How many?", [picture]).parts == (picture, "How many?")


@pytest.mark.parametrize("interface", INTERFACES)
def test_the_system_prompt_names_the_tags_of_its_interface(interface):
    prompt = system_prompt(interface)
    assert "<answer>" in prompt
    assert ("<code>" in prompt, "<box>" in prompt) == (interface == "code", interface == "box")


def test_a_reply_repeated_by_a_policy_is_not_an_action():
    text = reply(Execution(Outcome.OK, stdout="<answer>5</answer>")).text
    assert parse_action(text).kind == "malformed"


def test_the_reply_to_two_blocks_says_that_only_the_first_was_run(sandbox):
    block = "```python\nprint({})\n```"
    text = f"{block.format(1)}\nThen\n{block.format(2)}"
    with Episode(make_task(), sandbox, max_turns=3) as episode:
        reply = episode.step(text).reply
        assert reply.text == (
            "<tool_response>\n1\n</tool_response>\n"
            "Only the first of your 2 code blocks was run: write one per turn."
        )
        wrapped = episode.step(f"{block.format(1)}\n<code>\n{block.format(2)}\n</code>").reply
        assert wrapped.text == (
            "<tool_response>\n2\n</tool_response>\n"
            "Only the one in <code> of your 2 code blocks was run: write one per turn.\n"
            f"{LAST_TURN}"
        )


def test_the_reply_to_two_boxes_says_that_only_the_first_was_run(sandbox):
    with Episode(make_task(), sandbox, interface="box") as episode:
        reply = episode.step("<box>0, 0, 4, 4</box><box>2, 2, 4, 4</box>").reply
    assert reply.text.endswith("Only the first of your 2 boxes was run: write one per turn.")


def test_the_reply_to_one_block_has_no_such_note(sandbox):
    with Episode(make_task(), sandbox) as episode:
        text = "```\na plan\n```\n```python\nprint(1)\n```\n```json\n{}\n```"
        assert episode.step(text).reply.text == "<tool_response>\n1\n</tool_response>"
