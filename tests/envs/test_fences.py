"""Fenced code by CommonMark's rules, and in forms that models write beyond them."""

import pytest
from codedance.envs.parsing import Requests, parse_action, requests_in

THREE, FOUR, FIVE = "`" * 3, "`" * 4, "`" * 5
INNER = f's = """\n{THREE}\nx\n{THREE}\n"""\nprint(len(s))\n'
LOOP = "for i in range(2):\n    print(i)\n"


def code(text):
    action = parse_action(text)
    assert (action.kind, action.format_fault) == ("code", None), action
    return action.content


def indented(code, by):
    return "".join(f"{by}{line}\n" for line in code.splitlines())


@pytest.mark.parametrize("fence", [THREE, FOUR, FIVE, "`" * 17, "~~~", "~~~~~"])
@pytest.mark.parametrize("form", ["{}", "<code>\n{}\n</code>", "<code>{}</code>", "So:\n\n{}\nok"])
def test_a_fence_may_have_any_length(fence, form):
    assert code(form.format(f"{fence}python\n{LOOP}{fence}")) == LOOP


@pytest.mark.parametrize("fence", [FOUR, "~~~"])
def test_a_longer_or_another_fence_contains_shorter_ones(fence):
    assert code(f"{fence}python\n{INNER}{fence}") == INNER
    assert code(f"<code>\n{fence}python\n{INNER}{fence}\n</code>") == INNER


def test_a_closing_fence_may_be_longer_and_never_shorter():
    assert code(f"{THREE}python\nprint(1)\n{FIVE}") == "print(1)\n"
    assert parse_action(f"{FOUR}python\nprint(1)\n{THREE}").kind == "malformed"


@pytest.mark.parametrize("indent", [" ", "  ", "   "])
def test_an_indent_of_up_to_three_is_removed_from_the_content(indent):
    block = f"{indent}{THREE}python\n{indented(LOOP, indent)}{indent}{THREE}\n"
    assert code(block) == LOOP
    assert code(f"<code>\n{block}</code>") == LOOP


@pytest.mark.parametrize(
    ("lead", "indent"),
    [
        ("1. Do:\n\n   ", "   "),
        ("- Do:\n  ", "  "),
        ("- ", "  "),
        ("10. ", "    "),
        ("* a\n\n    * b\n\n      ", "      "),
        ("-\tDo:\n\n\t", "\t"),
        ("> ", "> "),
        ("> - ", ">   "),
        ("- > ", "  > "),
        ("1. Do: ", "   "),
    ],
)
@pytest.mark.parametrize("fence", [THREE, FOUR])
def test_a_fence_in_a_list_or_quotation_is_code(lead, indent, fence):
    body = indented(LOOP, indent)
    assert code(f"{lead}{fence}python\n{body}{indent}{fence}\n\nThen.") == LOOP


def test_code_left_of_its_fence_keeps_its_indentation():
    assert code(f"  {THREE}python\nif True:\n  print(1)\n  {THREE}") == "if True:\n  print(1)\n"


def test_lines_of_a_string_may_be_left_of_the_fence():
    body = '   s = """\nleft\n   """\n'
    assert code(f"   {THREE}python\n{body}   {THREE}") == 's = """\nleft\n"""\n'


def test_a_fence_indented_by_four_more_does_not_close():
    text = "s = '''\n    ```\n'''\nprint(s)\n"
    assert code(f"{THREE}python\n{text}{THREE}") == text


@pytest.mark.parametrize(
    "info",
    [
        "python",
        " python ",
        "Python",
        'python title="a b"',
        "{python}",
        "{.python .x}",
        "py",
        "",
        " ",
    ],
)
def test_the_first_word_of_the_info_string_is_the_language(info):
    assert code(f"{THREE}{info}\nprint(1)\n{THREE}") == "print(1)\n"


def test_a_line_with_a_backtick_in_the_info_string_is_not_a_fence():
    assert parse_action(f"{THREE}python `x`\nprint(1)\n{THREE}").kind == "malformed"
    assert code("~~~python `x`\nprint(1)\n~~~") == "print(1)\n"


def test_inline_code_does_not_open_a_fence():
    assert code(f"Use {THREE}x = 1{THREE}\n{THREE}python\nprint(1)\n{THREE}") == "print(1)\n"


def test_backticks_in_a_comment_or_string_do_not_close():
    for line in ("# ends with ```\n", 's = """```\nx\n```"""\n', "x = '``' '`'\n"):
        assert code(f"{THREE}python\n{line}print(1)\n{THREE}") == f"{line}print(1)\n"


def test_a_fence_closed_on_the_line_of_its_code_ends_there():
    text = f"{THREE}python\nprint(1){THREE}\nThen\n{THREE}python\nprint(2)\n{THREE}"
    assert code(text) == "print(1)"


def test_an_unclosed_bare_fence_hides_no_block():
    assert code(f"~~~\nplan\n{THREE}python\nprint(1)\n{THREE}") == "print(1)\n"


def test_an_unclosed_fence_extends_to_the_end():
    action = parse_action(f"{FOUR}python\nprint(1)\n{THREE}\n<answer>5</answer>")
    assert (action.kind, action.content) == ("malformed", "a code fence that is not closed")


@pytest.mark.parametrize(
    ("text", "count", "chosen"),
    [
        (f"{THREE}python\na\n{THREE}", 1, 0),
        (f"{THREE}python\na\n{THREE}\n{FOUR}python\nb\n{FOUR}", 2, 0),
        (f"{THREE}\na\n{THREE}\n{THREE}\nb\n{THREE}", 2, 0),
        (f"{THREE}\nplan\n{THREE}\n{THREE}python\na\n{THREE}", 1, 0),
        (f"{THREE}json\n{{}}\n{THREE}\n{THREE}python\na\n{THREE}", 1, 0),
        (f"{THREE}python\na\n{THREE}\n<code>\n{THREE}python\nb\n{THREE}\n</code>", 2, 1),
        (f"<code>\n{THREE}python\na\n{THREE}\n{THREE}python\nb\n{THREE}\n</code>", 2, 0),
        (f"<think>{THREE}python\na\n{THREE}</think>\n{THREE}python\nb\n{THREE}", 1, 0),
        (f"{THREE}python\na\n{THREE}\n{THREE}python\nb", 2, 0),
        ("no code", 0, 0),
    ],
)
def test_blocks_to_run_are_counted(text, count, chosen):
    assert requests_in(text) == Requests(count, chosen)


def test_an_unclosed_block_of_another_language_hides_no_code():
    assert code(f"{THREE}json\n{{}}\n\n{THREE}python\nprint(1)\n{THREE}") == "print(1)\n"
    assert code(f"{THREE} is how it begins:\n{THREE}python\nprint(1)\n{THREE}") == "print(1)\n"


def test_python_within_a_longer_block_of_another_language_is_not_run():
    text = f"{FOUR}markdown\n{THREE}python\nprint(1)\n{THREE}\n{FOUR}"
    assert parse_action(text).content == "the fence says 'markdown', not python"
