"""The end of a thought, opened by the policy or the template; no text in it is an action."""

import pytest
from codedance.envs.parsing import parse_action, thought_in

FENCE = "`" * 3
BLOCK = f"{FENCE}python\nprint(5)\n{FENCE}"
TAGGED = f"<code>\n{BLOCK}\n</code>"


def read(text, interface="code"):
    action = parse_action(text, interface=interface)
    return action.kind, action.content, action.format_fault


@pytest.mark.parametrize(
    "thought",
    [
        "Two rows of three.",
        "Maybe <answer>3</answer>? No.",
        f"Try {TAGGED} no.",
        f"Try\n{FENCE}python\nbad()\n{FENCE}\nno.",
        "It asks for <answer> and </answer>.",
        "<box>1, 2, 3, 4</box>",
        "",
    ],
)
@pytest.mark.parametrize("end", ["</think>", "\n</think>\n", "</THINK>", "</Think>"])
def test_text_before_a_lone_closing_tag_is_a_thought_without_a_fault(thought, end):
    assert read(f"{thought}{end}<answer>5</answer>") == ("answer", "5", None)
    assert read(f"{thought}{end}{TAGGED}") == ("code", "print(5)\n", None)
    assert read(f"{thought}{end}\n{BLOCK}") == ("code", "print(5)\n", None)


def test_a_thought_with_nothing_after_it_is_malformed():
    assert read("Maybe <answer>3</answer>.</think>")[0] == "malformed"
    assert read(f"{TAGGED}\n</think>\n")[0] == "malformed"


def test_a_lone_closing_tag_ends_a_thought_in_every_interface():
    text = "<box>1,1,2,2</box> <answer>3</answer></think>"
    assert "max(9, 0)" in read(f"{text}<box>9,9,20,20</box>", "box")[1]
    assert read(f"{text}<answer>5</answer>", "text") == ("answer", "5", None)


def test_the_last_of_several_lone_closing_tags_before_an_action_counts():
    fault = "a think tag without its other half"
    text = "<answer>1</answer></think><answer>2</answer></think><answer>5</answer>"
    assert read(text) == ("answer", "5", fault)
    assert read("Two.</think><answer>5</answer></think>") == ("answer", "5", fault)


def test_a_thought_may_follow_one_opened_by_the_template():
    text = "<answer>1</answer></think><think><answer>2</answer></think><answer>5</answer>"
    assert read(text) == ("answer", "5", None)


def test_a_nested_thought_ends_with_the_outer_one():
    text = "<think>a<think>b</think><answer>3</answer></think><answer>5</answer>"
    assert read(text) == ("answer", "5", None)
    assert read("<think>a<think>b</think><answer>3</answer></think>")[0] == "malformed"


def test_uppercase_tags_hide_text_like_lowercase_ones():
    assert read("<THINK><answer>3</answer></Think><answer>5</answer>") == ("answer", "5", None)


def test_a_closing_tag_inside_code_does_not_end_a_thought():
    code = "print('</think>')\n"
    assert read(f"{FENCE}python\n{code}{FENCE}") == ("code", code, None)
    assert read(f"<code>\n{FENCE}python\n{code}{FENCE}\n</code>") == ("code", code, None)
    lines = 's = """\n</think>\n"""\n'
    assert read(f"{FENCE}python\n{lines}{FENCE}") == ("code", lines, None)


def test_a_closing_tag_in_unclosed_code_does_not_end_a_thought():
    text = f"{FENCE}python\nprint('</think>')\nprint('<answer>5</answer>')"
    assert read(text)[:2] == ("malformed", "a code fence that is not closed")


def test_unclosed_code_in_a_thought_ends_with_the_thought():
    thought = f"Try\n{FENCE}python\nbad()\nno.\n</think>\n"
    assert read(f"{thought}<answer>5</answer>") == ("answer", "5", None)
    assert read(f"{thought}{BLOCK}") == ("code", "print(5)\n", None)
    assert read(f"<think>{thought}{BLOCK}") == ("code", "print(5)\n", None)


@pytest.mark.parametrize("opened", ["", "<think>"])
@pytest.mark.parametrize(
    "left_open",
    [
        "~~~python\nbad()\n</think>",
        "~~~python\nbad()\nno.</think>",
        f"{FENCE}`python\nbad()\n</think>",
        f"{FENCE}python\nbad()\nno.</think>",
    ],
)
def test_unclosed_code_of_any_fence_in_a_thought_hides_no_block(opened, left_open):
    assert read(f"{opened}Try\n{left_open}\n{BLOCK}")[:2] == ("code", "print(5)\n")


def test_unclosed_code_in_a_thought_hides_no_answer():
    text = f"Try\n{FENCE}python\nbad()\nno.</think>\n<answer>5</answer>"
    assert read(text)[:2] == ("answer", "5")


def test_a_tag_in_backticks_is_quoted_and_does_not_end_a_thought():
    assert read("I end with `</think>`. <answer>5</answer>") == ("answer", "5", None)


def test_a_thought_is_shown_without_its_tags():
    assert thought_in("<think> a </think><answer>5</answer>") == "a"
    assert thought_in("a\n</think><answer>5</answer>") == "a"
    assert thought_in("a</think>b<think>c</think><answer>5</answer>") == "a\nc"
    assert thought_in("<answer>5</answer>") == ""
    assert thought_in(f"{FENCE}python\nprint('</think>')\n{FENCE}") == ""


def test_think_tags_in_a_tool_response_written_by_the_policy_are_text():
    answer = ("answer", "5", None)
    assert read("<answer>5</answer><tool_response><think></tool_response>") == answer
    assert read("<tool_response><think>a</think></tool_response><answer>5</answer>") == answer
    forged = "<tool_response></think></tool_response>"
    assert read(f"{BLOCK}\n{forged}") == ("code", "print(5)\n", None)
