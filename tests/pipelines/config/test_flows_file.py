"""flows.yaml is validated, and an error has the location and a suggestion."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from codedance.pipelines.config.flows_file import (
    all_deployments,
    find_flows_file,
    load_flows_file,
    load_preset,
)
from codedance.pipelines.config.yaml_file import SettingsError

PACKAGED = Path(__file__).parents[3] / "flows.yaml"
TEXT = PACKAGED.read_text(encoding="utf-8")


def spoilt(tmp_path, old, new):
    assert old in TEXT
    path = tmp_path / "flows.yaml"
    path.write_text(TEXT.replace(old, new, 1), encoding="utf-8")
    line = path.read_text(encoding="utf-8").splitlines().index(new.strip("\n").splitlines()[-1]) + 1
    return path, line


def test_packaged_file_is_valid_and_has_the_three_presets():
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
    presets, _, deployments = TEXT.replace("\n  quick:", "\n  quik:").partition("\ndeployments:")
    path.write_text(presets, encoding="utf-8")
    assert "quik" in load_flows_file(path).presets  # any name is valid
    with pytest.raises(SettingsError, match=r"no preset 'quick' in .*; did you mean 'quik'"):
        load_preset("quick", path)
    path.write_text(f"{presets}\ndeployments:{deployments}", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"ments\.1\.parameters\.preset: .* mean 'quik'"):
        load_flows_file(path)


def test_a_typo_at_the_top_is_refused(tmp_path):
    said = refusal(tmp_path, "presets: {}\ndeploymets: []\n")
    assert said == "2: unknown key 'deploymets'; did you mean 'deployments'?"


def test_typo_in_a_deployment_is_rejected(tmp_path):
    path = tmp_path / "flows.yaml"
    path.write_text(TEXT.replace("entrypoint:", "entrypint:", 1), encoding="utf-8")
    with pytest.raises(SettingsError, match=r"'deployments\.0\.entrypint'; did you mean 'entry"):
        load_flows_file(path)


def test_the_error_for_a_value_out_of_range_has_its_line(tmp_path):
    path, line = spoilt(tmp_path, "      beta: 0.0\n", "      beta: -1\n")
    with pytest.raises(SettingsError, match=rf":{line}: presets\.quick\.grpo\.beta: .* got -1"):
        load_flows_file(path)


def test_missing_presets_are_named(tmp_path):
    path = tmp_path / "flows.yaml"
    path.write_text("deployments: []\n", encoding="utf-8")
    with pytest.raises(SettingsError, match="key 'presets' is missing"):
        load_flows_file(path)


def test_invalid_yaml_is_a_single_error_of_ours(tmp_path):
    path = tmp_path / "flows.yaml"
    path.write_text("presets: [\n", encoding="utf-8")
    with pytest.raises(SettingsError, match="not valid YAML"):
        load_flows_file(path)


def test_the_error_for_invalid_yaml_names_and_shows_the_line(tmp_path):
    path = tmp_path / "flows.yaml"
    path.write_text("presets:\n  smoke:\n   suite: nano\n    grpo: {steps: 1}\n", encoding="utf-8")
    with pytest.raises(SettingsError) as raised:
        load_flows_file(path)
    assert str(raised.value).startswith(f"{path}:4: not valid YAML: mapping values")
    assert "grpo: {steps: 1}" in str(raised.value)


@pytest.mark.parametrize(("text", "found"), [("", "nothing"), ("- a\n", r"\['a'\]")])
def test_the_error_for_a_file_without_keys_names_the_expected_one(tmp_path, text, found):
    path = tmp_path / "flows.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=f"the key 'presets', found {found}"):
        load_flows_file(path)


def test_the_error_for_an_unknown_preset_names_the_nearest():
    with pytest.raises(SettingsError, match="did you mean 'quick'"):
        load_preset("quik", PACKAGED)


def test_the_users_file_takes_precedence_over_the_packaged_one(tmp_path):
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


def test_a_schedule_defines_its_times_in_exactly_one_way(tmp_path):
    path = tmp_path / "flows.yaml"
    path.write_text(TEXT.replace("{interval: 300", "{cron: 0 3 * * *, interval: 300"))
    with pytest.raises(SettingsError, match="found cron and interval"):
        load_flows_file(path)


def test_only_the_demo_is_active_and_no_deployment_is_limited_over_the_whole_server():
    entries = load_flows_file(PACKAGED).deployments
    active = {entry.name for entry in entries if any(s.active for s in entry.schedules)}
    assert active == {"quick-demo"}
    assert {bool(s.cron) for entry in entries for s in entry.schedules} == {True, False}
    for entry in entries:
        assert entry.concurrency_limit is None  # a training is exclusive per host
        assert entry.description
        assert "codedance" in entry.tags


def refusal(tmp_path, text):
    """Return the error for a flows.yaml without the leading path."""
    path = tmp_path / "flows.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as error:
        load_flows_file(path)
    return str(error.value).removeprefix(f"{path}:")


def scheduled(entry):
    return f"""presets:
  smoke: {{suite: nano}}
deployments:
  - name: nightly
    entrypoint: codedance.pipelines.flows.sft
    schedules:
      - {entry}
"""


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ('{cron: "0 25 * * *"}', "cron: hour '25' is not within 0 to 23"),
        ('{cron: "60 * * * *"}', "cron: minute '60' is not within 0 to 59"),
        ('{cron: "0 0 30 2 *"}', "cron: it never fires: no such month has a day 30"),
        ('{cron: "0 0 31 2,4,jun *"}', "cron: it never fires: no such month has a day 31"),
        ('{cron: "0 0 31 11 mon"}', "cron: it never fires"),  # croniter also fails there
        ('{cron: "every night"}', "cron: 2 fields instead of 5"),
        ('{cron: "* * * * */0"}', "cron: day of the week '*/0' is not within"),
        ('{cron: "0 3 * * *", timezone: PST}', "timezone: not a time zone in the IANA database"),
        ('{cron: "0 3 * * *", timezone: europe/berlin}', "did you mean Europe/Berlin"),
        ('{cron: "0 3 * * *", timezone: ../UTC}', "timezone: not a time zone"),
        ('{cron: "0 3 * * *", anchor_date: "2026-01-01"}', "anchor_date belongs to an interval"),
        ("{rrule: FREQ=SOMETIMES}", "rrule: not a recurrence rule (invalid 'FREQ': SOMETIMES)"),
        ("{rrule: every night}", "rrule: not a recurrence rule"),
        ("{rrule: BYDAY=MO}", "rrule: not a recurrence rule"),
        ("{rrule: FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30}", "rrule: it never fires: no future date"),
        ("{rrule: FREQ=DAILY;UNTIL=20200101T000000}", "rrule: it never fires"),
        ("{rrule: FREQ=DAILY;COUNT=3}", "rrule: it never fires"),
        ("{rrule: FREQ=DAILY;INTERVAL=0}", "rrule: not a recurrence rule"),
        ("{rrule: FREQ=HOURLY;BYHOUR=25}", "rrule: not a recurrence rule"),
        ("{rrule: FREQ=DAILY;BYEASTER=400}", "rrule: not a recurrence rule"),
        ("{rrule: FREQ=DAILY;INTERVAL=7;BYDAY=SA}", "rrule: it never fires"),
        ("{rrule: FREQ=YEARLY;INTERVAL=10000}", "rrule: it never fires"),
        ("{rrule: FREQ=HOURLY;COUNT=5}", "rrule: it never fires"),
        ("{rrule: FREQ=MINUTELY;UNTIL=20210101T000000}", "rrule: it never fires"),
        (r'{rrule: "DTSTART:20240131T000000\nRRULE:FREQ=MONTHLY;BYMONTH=2"}', "it never fires"),
        ('{rrule: "RDATE:20200101T000000"}', "rrule: it never fires"),
        (r'{rrule: "RRULE:FREQ=DAILY;COUNT=1\nEXDATE:20200101T000000"}', "it never fires"),
        (r'{rrule: "RRULE:FREQ=DAILY;INTERVAL=0\nEXDATE:20200101T000000"}', "not a recurrence"),
        (r'{rrule: "RRULE:FREQ=DAILY\nEXRULE:FREQ=DAILY"}', "EXRULE is no longer part of RFC 5545"),
        (r'{rrule: "DTSTART;TZID=PST:20200101T000000\nRRULE:FREQ=DAILY"}', "not a time zone in"),
        ('{cron: "0 3 * * *", timezone: posix/Europe/Berlin}', "not a time zone in"),
        ("{interval: yes}", "interval: it is a boolean"),
        ("{interval: 0}", "interval: Input should be greater than or equal to 1"),
        ("{interval: 1.0e+20}", "interval: Input should be less than or equal to"),
        ("{interval: .inf}", " .inf: write a finite number"),
        ("{interval: 60, anchor_date: yesterday}", "anchor_date: not a date"),
    ],
)
def test_a_schedule_that_never_fires_is_rejected_with_its_line(tmp_path, entry, reason):
    said = refusal(tmp_path, scheduled(entry))
    assert said.startswith("7:")
    assert reason in said


@pytest.mark.parametrize(
    "entry",
    [
        '{cron: "0 2 * * 6", timezone: Europe/Berlin}',
        '{cron: "*/5 8-18 * * mon-fri"}',
        '{cron: "0 0 29 2 *"}',
        '{cron: "0 0 31 2,3 *"}',
        '{cron: "0 0 L * *"}',
        '{cron: "@weekly"}',
        "{rrule: FREQ=MONTHLY;BYDAY=1MO, timezone: UTC}",
        "{rrule: FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29}",
        r'{rrule: "DTSTART:20260301T060000\nRRULE:FREQ=MONTHLY;INTERVAL=3;BYMONTH=3;BYMONTHDAY=1"}',
        r'{rrule: "DTSTART:20260105T090000\nRRULE:FREQ=DAILY;INTERVAL=14;BYDAY=MO"}',
        "{rrule: FREQ=DAILY;INTERVAL=7;BYDAY=WE}",
        r'{rrule: "DTSTART:20240201T000000\nRRULE:FREQ=MONTHLY;INTERVAL=12;BYMONTH=2"}',
        r'{rrule: "RRULE:FREQ=DAILY\nEXDATE:20200101T000000"}',
        '{rrule: "RDATE:99980101T000000"}',
        "{rrule: FREQ=SECONDLY}",
        '{cron: "@weekly "}',
        '{cron: "0 0 * * MON#2"}',
        "{rrule: FREQ=DAILY;UNTIL=99980101T000000}",
        '{interval: 21600, anchor_date: "2026-01-01T03:00:00Z"}',
    ],
)
def test_schedules_that_fire_are_accepted(tmp_path, entry):
    path = tmp_path / "flows.yaml"
    path.write_text(scheduled(entry), encoding="utf-8")
    assert load_flows_file(path).deployments[0].schedules


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("quick: {}\n  quick: {}", "3: the key 'quick' is already in line 2: keep one"),
        ("quick:\n    sft: {steps: 1, steps: 2}", "3: the key 'steps' is already in line 3"),
        ("quick: &q {}\n  full: {<<: *q, <<: *q}", "3: the key '<<' is already in line 3"),
        ("quick:\n    grpo: {learning_rate: .inf}", "3: .inf: write a finite number"),
        ("quick:\n    grpo: {temperature: .nan}", "3: .nan: write a finite number"),
        ("quick:\n    grpo: {temperature: 1e999}", "3: presets.quick.grpo.temperature: Input"),
        ("quick:\n    sft: {learning_rate: infinity}", "3: presets.quick.sft.learning_rate: Input"),
        ("quick:\n    server: {price_input: nan}", "3: presets.quick.server.price_input: Input"),
        ("quick:\n    grpo: {reward_terms: {a: -.inf}}", "3: -.inf: write a finite number"),
        ("on: {}", "2: the key 'on' is not a string in YAML but True: quote it"),
        ("1: {}", "2: the key '1' is not a string in YAML but 1: quote it"),
        ("~: {}", "2: the key '~' is not a string in YAML but None: quote it"),
        ("? [a]\n  : {}", "2: a list or mapping cannot be a key"),
        ("quick: [1]", "2: presets.quick: expected keys and their values, got [1]"),
        ("quick:", "2: presets.quick: expected keys and their values, got nothing"),
        ("\tquick: {}", "2: not valid YAML: found character '\\t'"),
        ("quick: {suite: 2026-13-45}", "2: not valid YAML: '2026-13-45' is not a valid value"),
        ("quick:\n    sft: {steps: !!int ''}", "3: not valid YAML: '' is not a valid value"),
        ("quick:\n    sft: {steps: yes}", "3: presets.quick.sft.steps: it is a boolean"),
        (r'quick: {suite: "\U00110000"}', "2: not valid YAML: chr() arg not in range"),
        (r'quick: {suite: "\UFFFFFFFF"}', "2: not valid YAML: "),
        ("quick:\n    sft: {steps: &a [*a]}", "3: presets.quick.sft.steps: Input should be"),
        ("quick:\n    sft: {steps: &a {b: *a}}", "3: presets.quick.sft.steps: Input should be"),
        ("quick: {suite: *there}", "2: not valid YAML: found undefined alias 'there'"),
        ('quick: {suite: "\x00"}', "2: not valid YAML: the character '\\x00': remove it"),
        ("quick: !!python/object:os.system {}", "2: not valid YAML: could not determine"),
        ("quick: &q {sft: {steps: 3}}\n  full:\n    <<: *q\n    grpo: {step: 2}", "5: unknown key"),
    ],
)
def test_valid_but_unintended_yaml_is_rejected_with_its_line(tmp_path, text, said):
    assert refusal(tmp_path, f"presets:\n  {text}\n").startswith(said)


def test_all_errors_of_a_file_are_listed_at_once(tmp_path):
    text = "presets:\n  quick: {suite: a, suite: b, max_new_tokens: .inf}\n  on: {}\n"
    assert len(refusal(tmp_path, text).splitlines()) == 3


def test_a_merged_key_has_the_line_of_its_definition(tmp_path):
    text = "presets:\n  quick: &q\n    sft: {steps: 0}\n  full: {<<: *q}\n"
    lines = refusal(tmp_path, text).splitlines()
    assert [line.removeprefix(f"{tmp_path / 'flows.yaml'}:")[0] for line in lines] == ["3", "3"]


def test_anchors_and_merges_still_work(tmp_path):
    path = tmp_path / "flows.yaml"
    text = (
        "presets:\n  quick: &q\n    sft: {steps: 3}\n  full:\n    <<: *q\n    suite: nano:count\n"
    )
    path.write_text(text, encoding="utf-8")
    presets = load_flows_file(path).presets
    assert presets["full"].sft.steps == 3
    assert presets["full"].suite == "nano:count"


def test_a_file_that_is_not_utf8_or_not_a_file_is_a_single_error_of_ours(tmp_path):
    path = tmp_path / "flows.yaml"
    path.write_bytes(b"presets:\n  quick: {suite: \xff}\n")
    with pytest.raises(SettingsError, match=":2: not UTF-8"):
        load_flows_file(path)
    with pytest.raises(SettingsError, match="cannot be read"):
        load_flows_file(tmp_path)


def test_an_invalid_limit_of_a_deployment_is_reported_as_written(tmp_path):
    text = scheduled("{cron: 0 3 * * *}") + "    concurrency_limit: "
    said = refusal(tmp_path, text + "{limt: 1}\n")
    assert "unknown key 'deployments.0.concurrency_limit.limt'; did you mean 'limit'?" in said
    assert "constrained" not in said
    (only,) = refusal(tmp_path, text + "none\n").splitlines()
    assert "deployments.0.concurrency_limit: Input should be a valid integer" in only


def test_a_folder_or_a_dangling_link_of_its_name_is_reported(tmp_path):
    (tmp_path / "one" / "flows.yaml").mkdir(parents=True)
    with pytest.raises(SettingsError, match=r"one/flows\.yaml cannot be read: Is a directory"):
        load_flows_file(find_flows_file(tmp_path / "one"))
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "flows.yaml").symlink_to(tmp_path / "gone")
    with pytest.raises(SettingsError, match=r"two/flows\.yaml cannot be read: No such file"):
        load_flows_file(find_flows_file(tmp_path / "two"))


def test_a_too_deeply_nested_file_is_a_single_error_of_ours(tmp_path):
    assert "nested too deeply" in refusal(tmp_path, f"presets: {'[' * 3000}{']' * 3000}\n")


@pytest.mark.parametrize("preset", ["grpo: {learning_rate: .inf}", "suite: a, suite: b"])
def test_a_command_exits_with_the_code_of_wrong_usage_and_no_traceback(
    codedance, home, tmp_path, monkeypatch, preset
):
    (tmp_path / "flows.yaml").write_text(f"presets:\n  smoke: {{{preset}}}\n")
    monkeypatch.chdir(tmp_path)
    code, out, error = codedance("curate", "--preset", "smoke")
    assert (code, out) == (2, "")
    assert error.startswith(f"codedance: {tmp_path / 'flows.yaml'}:2: ")
    assert "Traceback" not in error


def deployed(parameters, flow="pipeline", schedule="{interval: 60}"):
    return f"""presets:
  smoke: {{suite: nano}}
deployments:
  - name: nightly
    entrypoint: codedance.pipelines.flows.{flow}
    parameters: {parameters}
    schedules:
      - {schedule}
"""


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ("{preset: smok}", ".preset: there is no preset 'smok'; did you mean 'smoke'?"),
        ("{overrides: {grpo.stpes: 3}}", ".overrides.grpo.stpes: unknown key 'grpo.stpes'; did"),
        ("{overrides: {grpo.steps: 0}}", ".overrides.grpo.steps: Input should be greater than"),
        ("{overrides: {grpo: {stpes: 3}}}", ".overrides.grpo: unknown key 'grpo.stpes'; did"),
        ("{overrides: [1]}", ".overrides: expected keys and their values, got [1]"),
        ("{suite: nano, overrides: {suite: nano}}", ".overrides.suite: the parameter suite is giv"),
        (
            "{preset: smoke, run: abc}",
            ".run: run continues a run as it was resolved: leave the oth",
        ),
        ("{run: abc, seed: 0}", ".run: run continues a run"),
        ("{seed: -1}", ".seed: Input should be greater than or equal to 0, got -1"),
        ("{seed: yes}", ".seed: it is a boolean"),
        ("{suite: 3}", ".suite: Input should be a valid string, got 3"),
    ],
)
def test_a_deployment_that_its_flow_would_refuse_is_refused_with_its_line(
    tmp_path, parameters, said
):
    assert refusal(tmp_path, deployed(parameters)).startswith(f"6: deployments.0.parameters{said}")
    late = deployed("{}", schedule=f"{{interval: 60, parameters: {parameters}}}")
    there = f"8: deployments.0.schedules.0.parameters{said}"
    assert refusal(tmp_path, late).startswith(there)


def test_a_typo_in_a_parameter_or_a_flow_names_the_nearest(tmp_path):
    said = refusal(tmp_path, deployed('{sed: 3, preset: "{{ $PRESET }}"}'))
    assert said == "6: unknown key 'deployments.0.parameters.sed'; did you mean 'seed'?"
    said = refusal(tmp_path, deployed("{}", flow="grop"))
    assert said == "5: deployments.0.entrypoint: there is no flow 'grop'; did you mean 'grpo'?"


@pytest.mark.parametrize(
    ("parameters", "late", "key"),
    [
        ("{preset: smoke}", "{run: abc}", "run"),
        ("{run: abc}", "{seed: 1}", "seed"),
        ("{suite: nano}", "{overrides: {suite: nano}}", "overrides.suite"),
        ("{overrides: {suite: nano}}", "{suite: nano}", "suite"),
    ],
)
def test_a_schedule_is_checked_over_its_deployment(tmp_path, parameters, late, key):
    text = deployed(parameters, schedule=f"{{interval: 60, parameters: {late}}}")
    said = refusal(tmp_path, text)
    assert said.startswith(f"8: deployments.0.schedules.0.parameters.{key}: ")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("sft.steps", 3, "grpo takes a finished sft as it is"),
        ("suite", "nano", "grpo takes the tasks of the curation as they are"),
    ],
)
def test_an_override_that_a_flow_does_not_read_is_refused(tmp_path, key, value, reason):
    text = deployed(f"{{overrides: {{{key}: {value}}}}}", flow="grpo")
    said = refusal(tmp_path, text)
    assert said.startswith(f"6: deployments.0.parameters.overrides.{key}: {reason}")
    assert load_flows_file_of(tmp_path, text.replace("flows.grpo", "flows.pipeline")).deployments


def load_flows_file_of(tmp_path, text):
    path = tmp_path / "flows.yaml"
    path.write_text(text, encoding="utf-8")
    return load_flows_file(path)


@pytest.mark.parametrize(
    "parameters",
    [
        "{preset: smoke, seed: 0, refresh: true, from_run: latest, overrides: {grpo.steps: 3}}",
        "{run: abc, refresh: no, overrides: {}, preset: ~}",
        '{preset: "{{ prefect.variables.p }}", seed: "{{ $S }}"}',
        '{overrides: {grpo.steps: "{{ prefect.variables.steps }}", grpo: {beta: 0.1}}}',
    ],
)
def test_parameters_that_a_flow_takes_are_taken(tmp_path, parameters):
    assert load_flows_file_of(tmp_path, deployed(parameters)).deployments


def test_the_parameters_of_a_flow_of_the_users_own_are_theirs(tmp_path):
    text = deployed("{sed: 3, preset: none}").replace("codedance.pipelines.flows.", "own.")
    assert load_flows_file_of(tmp_path, text).deployments


TUTORIAL = """presets:
  smoke: {suite: nano}
  mine: {extends: smoke}
"""


@pytest.mark.parametrize("end", ["", "deployments: []\n"])
def test_a_file_without_deployments_has_one_of_each_flow(tmp_path, end):
    path = tmp_path / "flows.yaml"
    path.write_text(TUTORIAL + end, encoding="utf-8")
    found = all_deployments(path)
    names = [f"{entry.entrypoint.rpartition('.')[2]}/{entry.name}" for entry in found]
    assert names == [
        *("pipeline/smoke", "pipeline/mine", "curate/smoke", "curate/mine"),
        *("sft/newest", "grpo/newest", "evaluate/newest"),
    ]
    assert [entry.parameters for entry in found[:2]] == [{"preset": "smoke"}, {"preset": "mine"}]
    assert {entry.work_pool.name for entry in found} == {"codedance-process"}
    assert not any(entry.schedules for entry in found)
    assert not any(entry.concurrency_limit for entry in found)
