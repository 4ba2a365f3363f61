"""Warnings and logs of libraries are limited and counted; the model's own output is not."""

import pytest

CHINESE = "".join(map(chr, range(0x4E00, 0x4E00 + 200)))


def stderr(sandbox, *blocks):
    with sandbox.session() as session:
        return [session.run(block) for block in blocks][-1].stderr


def test_a_title_with_many_missing_glyphs_does_not_fill_the_reply(full):
    code = f"import matplotlib.pyplot as plt\nplt.title({CHINESE!r})\nplt.plot([1])\nprint(3)"
    with full.session() as session:
        execution = session.run(code)
    assert (execution.stdout, len(execution.images)) == ("3\n", 1)
    assert execution.stderr.count("UserWarning: Glyph ") == 4
    assert execution.stderr.endswith("[library warnings left out: 196 further]\n")
    assert len(execution.stderr) < 700


def test_a_missing_font_is_reported_once(full):
    code = "import matplotlib.pyplot as plt\nplt.rcParams['font.family'] = 'NoSuchFont'\n"
    code += "for n in range(3): plt.plot([n]); plt.title('a'); plt.show()"
    text = stderr(full, code)
    assert text.count("findfont: Font family 'NoSuchFont' not found.") == 1
    assert text.endswith(" repeated]\n")


def test_logging_configured_by_the_model_is_limited_too(full):
    code = "import logging\nimport matplotlib.pyplot as plt\nlogging.basicConfig()\n"
    code += "plt.rcParams['font.family'] = 'NoSuchFont'\nplt.title('a')\nplt.show()"
    assert stderr(full, code).count("WARNING:matplotlib.font_manager:findfont") == 1


def test_a_warning_in_a_loop_is_reported_once_with_the_count(full):
    code = "import warnings\nwarnings.simplefilter('always')\n"
    code += "for n in range(50): warnings.warn('odd')"
    assert stderr(full, code) == (
        "<block 1>:3: UserWarning: odd\n  for n in range(50): warnings.warn('odd')\n"
        "[library warnings left out: 49 repeated]\n"
    )


def test_every_block_has_its_own_count(full):
    code = "import warnings\nwarnings.simplefilter('always')\nwarnings.warn('odd')"
    assert stderr(full, code, code) == "<block 2>:3: UserWarning: odd\n  warnings.warn('odd')\n"


def test_warnings_of_many_places_are_limited_together(full):
    code = "import warnings\n" + "\n".join(f"warnings.warn('number {n}')" for n in range(40))
    text = stderr(full, code)
    assert text.count("UserWarning: number") == 12
    assert text.endswith("[library warnings left out: 28 further]\n")


def test_a_long_warning_keeps_its_end(full):
    text = stderr(full, "import warnings\nwarnings.warn('a' * 5_000 + ' in column 7')")
    assert len(text) < 700
    assert "in column 7\n" in text


@pytest.mark.parametrize(
    "code",
    [
        "import sys\nfor _ in range(50): print('mine', file=sys.stderr)",
        "import logging\nfor _ in range(50): logging.warning('mine')",
        "import logging\nlog = logging.getLogger('me')\nfor _ in range(50): log.error('mine')",
    ],
)
def test_the_models_own_output_is_complete(full, code):
    text = stderr(full, code)
    assert text.count("mine") == 50
    assert "left out" not in text


def test_warnings_can_still_be_caught_and_turned_into_errors(full):
    code = "import warnings\nwith warnings.catch_warnings(record=True) as seen:\n"
    code += "    warnings.simplefilter('always')\n"
    code += "    for n in range(30): warnings.warn(f'number {n}')\nprint(len(seen))"
    with full.session() as session:
        execution = session.run(code)
        assert (execution.stdout, execution.stderr) == ("30\n", "")
        code = "import warnings\nwarnings.simplefilter('error')\nwarnings.warn('no')"
        assert session.run(code).error == "UserWarning: no, line 3"


def test_a_warning_of_the_models_own_file_keeps_its_location(full):
    write = "open('mine.py', 'w').write('import warnings\\nwarnings.warn(\"odd\")\\n')"
    code = "import os, sys\nsys.path.append(os.getcwd())\nimport mine"
    assert stderr(full, write, code).endswith(
        'mine.py:2: UserWarning: odd\n  warnings.warn("odd")\n'
    )
