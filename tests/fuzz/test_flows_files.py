"""Any flows.yaml yields settings, or an error that begins with the file's path."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from codedance.pipelines.config import flows_file
from codedance.pipelines.config.deployments import FlowsFile
from codedance.pipelines.config.flows_file import load_flows_file
from codedance.pipelines.config.yaml_file import SettingsError
from hypothesis import given
from hypothesis import strategies as st

from .settings import examples
from .test_replies import json_values

pytestmark = pytest.mark.slow

PACKAGED = Path(flows_file.__file__).with_name("flows.yaml").read_text(encoding="utf-8")
LINES = PACKAGED.splitlines()
ODD = (
    *("", "~", "[]", "{}", "-1", "0", "1e999", ".inf", ".nan", "'x'", "yes", "2026-01-01", "0x1F"),
    *(
        "&a [*a]",
        "*missing",
        "!!python/object:os.system x",
        "!!binary aGk=",
        "\t",
        "'",
        '"',
        "%",
        "@",
    ),
    *("0 25 * * *", "PST", "? [a]", "<<: 1", "<<: *pool", "|\n x", "é", "\u2028", "- -", "a: b: c"),
)


def outcome(path):
    """Read the file; return the error if it is rejected."""
    try:
        assert isinstance(load_flows_file(path), FlowsFile)
    except SettingsError as error:
        assert all(line.startswith(str(path)) for line in str(error).splitlines()[:1])
        return str(error)
    return None


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("flows") / "flows.yaml"


@given(data=st.data())
@examples(800)
def test_the_packaged_file_with_odd_edits_is_read_or_rejected(path, data):
    lines = list(LINES)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(lines) - 1))
        match data.draw(st.sampled_from(["drop", "double", "value", "key", "indent"])):
            case "drop":
                del lines[at]
            case "double":
                lines.insert(at, lines[at])
            case "value":
                lines[at] = lines[at].split(":")[0] + ": " + data.draw(st.sampled_from(ODD))
            case "key":
                lines[at] = lines[at].replace("e", data.draw(st.sampled_from(["", "E", ":", " "])))
            case _:
                lines[at] = data.draw(st.sampled_from(["", " ", "   ", "\t"])) + lines[at].strip()
    path.write_text("\n".join(lines), encoding="utf-8")
    outcome(path)


@given(json_values)
@examples(400)
def test_any_tree_is_read_or_rejected(path, tree):
    path.write_bytes(yaml.safe_dump({"presets": {"quick": tree}}).encode("utf-8", "replace"))
    outcome(path)


@given(st.one_of(st.binary(max_size=80), st.text(max_size=80).map(lambda t: t.encode("utf-8"))))
@examples(400)
def test_any_bytes_are_rejected_with_the_path(path, content):
    path.write_bytes(content)
    assert outcome(path) is not None


FIELDS = [
    (stage, name)
    for stage in ("curate", "sft", "grpo", "evaluate", "sandbox", "alarms", "server")
    for name in yaml.safe_load(PACKAGED)["presets"]["quick"].get(stage, {}) or {}
]


@given(st.sampled_from(FIELDS), json_values)
@examples(800)
def test_any_value_of_a_known_field_is_read_or_rejected(path, where, value):
    tree = yaml.safe_load(PACKAGED)
    stage, name = where
    tree["presets"]["quick"][stage][name] = value
    path.write_bytes(yaml.safe_dump(tree).encode("utf-8", "replace"))
    outcome(path)
