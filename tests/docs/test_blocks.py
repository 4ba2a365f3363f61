"""Tests of the parser of blocks and marks."""

from __future__ import annotations

from .blocks import read_blocks

PAGE = """# Title

```python
print(1)
```

<!-- not run: starts servers -->
```console
$ codedance ui
MLflow   somewhere
$ codedance runs \\
    --json
```

- in a list

  ```bash
  # a comment
  ls
  ```

<!-- exits: 1 -->

```console
$ false
```

```yaml
# flows.yaml
presets: {}
```
"""


def test_blocks_have_a_language_a_position_and_text():
    blocks = read_blocks(PAGE)
    assert [b.language for b in blocks] == ["python", "console", "bash", "console", "yaml"]
    assert blocks[0].text == "print(1)\n"
    assert [b.line for b in blocks][:2] == [3, 8]


def test_output_and_comments_are_not_commands():
    _, console, bash, *_ = read_blocks(PAGE)
    assert console.commands == ["codedance ui", "codedance runs      --json"]
    assert bash.commands == ["ls"]


def test_a_mark_applies_only_to_the_next_block():
    blocks = read_blocks(PAGE)
    assert [b.not_run for b in blocks] == [None, "starts servers", None, None, None]
    assert [b.exit_code for b in blocks] == [0, 0, 0, 1, 0]


def test_a_block_can_name_its_file():
    assert [b.file for b in read_blocks(PAGE)] == [None, None, None, None, "flows.yaml"]
