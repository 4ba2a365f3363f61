"""flows.yaml is checked, and an error says where and what was meant."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from codedance.pipelines.flows_file import (
    SettingsError,
    find_flows_file,
    load_flows_file,
    load_preset,
)

PACKAGED = Path(__file__).parents[2] / "flows.yaml"
TEXT = PACKAGED.read_text(encoding="utf-8")


def spoilt(tmp_path, old, new):
    assert old in TEXT
    path = tmp_path / "flows.yaml"
    path.write_text(TEXT.replace(old, new, 1), encoding="utf-8")
    line = path.read_text(encoding="utf-8").splitlines().index(new.strip("\n").splitlines()[-1]) + 1
    return path, line


def test_shipped_file_is_valid_and_has_the_three_presets():
    assert set(load_flows_file(PACKAGED).presets) == {"smoke", "quick", "full"}


def test_typo_names_path_line_key_and_nearest_valid_key(tmp_path):
    path, line = spoilt(tmp_path, "      learning_rate: 6.0e-5\n", "      learning_rat: 5.0e-5\n")
    with pytest.raises(SettingsError) as error:
        load_flows_file(path)
    assert str(error.value) == (
        f"{path}:{line}: unknown key 'presets.quick.grpo.learning_rat'; "
        "did you mean 'learning_rate'?"
    )


def test_typo_in_a_preset_name_is_explained(tmp_path):
    path = tmp_path / "flows.yaml"
    path.write_text(TEXT.replace("\n  quick:", "\n  quik:"), encoding="utf-8")
    with pytest.raises(SettingsError, match=r"'presets\.quik'; did you mean 'quick'"):
        load_flows_file(path)


def test_typo_in_a_deployment_is_refused(tmp_path):
    path = tmp_path / "flows.yaml"
    path.write_text(TEXT.replace("entrypoint:", "entrypint:", 1), encoding="utf-8")
    with pytest.raises(SettingsError, match=r"'deployments\.0\.entrypint'; did you mean 'entry"):
        load_flows_file(path)


def test_value_out_of_range_names_its_line(tmp_path):
    path, line = spoilt(tmp_path, "      beta: 0.0\n", "      beta: -1\n")
    with pytest.raises(SettingsError, match=rf":{line}: presets\.quick\.grpo\.beta: .* got -1"):
        load_flows_file(path)


def test_missing_presets_are_named(tmp_path):
    path = tmp_path / "flows.yaml"
    path.write_text("deployments: []\n", encoding="utf-8")
    with pytest.raises(SettingsError, match="key 'presets' is missing"):
        load_flows_file(path)


def test_broken_yaml_is_one_error_of_ours(tmp_path):
    path = tmp_path / "flows.yaml"
    path.write_text("presets: [\n", encoding="utf-8")
    with pytest.raises(SettingsError, match="not valid YAML"):
        load_flows_file(path)


def test_broken_yaml_names_the_line_and_shows_it(tmp_path):
    path = tmp_path / "flows.yaml"
    path.write_text("presets:\n  smoke:\n   suite: nano\n    grpo: {steps: 1}\n", encoding="utf-8")
    with pytest.raises(SettingsError) as raised:
        load_flows_file(path)
    assert str(raised.value).startswith(f"{path}:4: not valid YAML: mapping values")
    assert "grpo: {steps: 1}" in str(raised.value)


@pytest.mark.parametrize(("text", "found"), [("", "nothing"), ("- a\n", r"\['a'\]")])
def test_a_file_without_keys_says_which_is_expected(tmp_path, text, found):
    path = tmp_path / "flows.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=f"the key 'presets' .* found {found}"):
        load_flows_file(path)


def test_unknown_preset_names_the_nearest():
    with pytest.raises(SettingsError, match="did you mean 'quick'"):
        load_preset("quik", PACKAGED)


def test_own_file_goes_before_the_packaged_one(tmp_path):
    assert find_flows_file(tmp_path).name == "flows.yaml"
    assert find_flows_file(tmp_path).parent != tmp_path
    (tmp_path / "flows.yaml").write_text("", encoding="utf-8")
    assert find_flows_file(tmp_path).parent == tmp_path


def test_deployments_name_flows_in_module_form():
    entries = yaml.safe_load(TEXT)["deployments"]
    found = {entry["entrypoint"] for entry in entries}
    assert found == {
        f"codedance.pipelines.flows.{name}"
        for name in ("pipeline", "curate", "sft", "grpo", "evaluate")
    }


def test_a_schedule_says_when_in_one_way(tmp_path):
    path = tmp_path / "flows.yaml"
    path.write_text(TEXT.replace("{interval: 300", "{cron: 0 3 * * *, interval: 300"))
    with pytest.raises(SettingsError, match="found cron and interval"):
        load_flows_file(path)


def test_only_the_demo_begins_by_itself_and_only_one_run_of_each_at_a_time():
    entries = load_flows_file(PACKAGED).deployments
    active = {entry.name for entry in entries if any(s.active for s in entry.schedules)}
    assert active == {"quick-demo"}
    assert {bool(s.cron) for entry in entries for s in entry.schedules} == {True, False}
    for entry in entries:
        assert entry.concurrency_limit
        assert entry.description
        assert "codedance" in entry.tags
