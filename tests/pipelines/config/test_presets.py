"""Custom presets that extend others, and overrides of single values."""

from __future__ import annotations

import pytest
from codedance.pipelines.config.flows_file import load_flows_file, load_preset
from codedance.pipelines.config.presets import (
    flat_overrides,
    merged_overrides,
    read_overrides,
    with_overrides,
)
from codedance.pipelines.config.settings import Preset
from codedance.pipelines.config.yaml_file import SettingsError


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "flows.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def refusal(path):
    with pytest.raises(SettingsError) as error:
        load_flows_file(path)
    return str(error.value).removeprefix(f"{path}:")


def test_a_custom_preset_has_the_values_it_extends_except_its_own(write):
    path = write(
        "presets:\n"
        "  base: {suite: 'nano:count', grpo: {steps: 3, num_generations: 4}}\n"
        "  mine:\n    extends: base\n    grpo: {steps: 9}\n"
        "  longer: {extends: mine, sft: {steps: 7}}\n"
    )
    longer = load_preset("longer", path)
    assert (longer.suite, longer.sft.steps) == ("nano:count", 7)
    assert (longer.grpo.steps, longer.grpo.num_generations) == (9, 4)
    assert load_preset("base", path).grpo.steps == 3


def test_a_packaged_preset_can_be_extended_in_any_file_and_under_its_own_name(write):
    packaged = load_preset("quick")
    path = write(
        "presets:\n  mine: {extends: quick, grpo: {steps: 9}}\n  quick: {extends: quick}\n"
    )
    assert load_preset("quick", path) == packaged
    changed = packaged.grpo.model_copy(update={"steps": 9})
    assert load_preset("mine", path) == packaged.model_copy(update={"grpo": changed})


def test_lists_and_single_values_are_replaced_completely(write):
    path = write(
        "presets:\n  one: {sft: {shown_directly: [tag, bars]}}\n"
        "  two: {extends: one, sft: {shown_directly: [maze]}}\n"
    )
    assert load_preset("two", path).sft.shown_directly == ("maze",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "presets:\n  a: {extends: b}\n  b:\n    extends: a\n",
            "2: presets.a.extends: a circle: a → b → a: cut it",
        ),
        (
            "presets:\n  a:\n    suite: nano\n    extends: smoek\n",
            "4: presets.a.extends: there is no preset 'smoek'; did you mean 'smoke'?",
        ),
        ("presets:\n  a: {extends: a}\n", "2: presets.a.extends: 'a' extends itself"),
        ("presets:\n  a: {extends: [b]}\n", "2: presets.a.extends: expected a preset's name"),
        ("presets:\n  a/b: {suite: nano}\n", "2: presets.a/b: a preset's name has letters"),
        (f"presets:\n  {'a' * 51}: {{}}\n", f"2: presets.{'a' * 51}: a preset's name has letters"),
        (
            "presets:\n  a:\n    extend: quick\n",
            "3: unknown key 'presets.a.extend'; did you mean 'extends'?",
        ),
        (
            "presets:\n  b: {grpo: {step: 1}}\n  a: {extends: b}\n",
            "2: unknown key 'presets.b.grpo.step'; did you mean 'steps'?",
        ),
    ],
)
def test_invalid_presets_are_rejected_with_line_and_fix(write, text, said):
    assert refusal(write(text)).startswith(said)


def test_a_chain_of_presets_has_a_largest_length(write):
    def chain(count):
        links = (f"  p{one}: {{extends: p{one + 1}}}\n" for one in range(count - 1))
        return write(f"presets:\n{''.join(links)}  p{count - 1}: {{suite: 'nano:count'}}\n")

    assert load_preset("p0", chain(100)).suite == "nano:count"
    assert refusal(chain(1500)).startswith(
        "2: presets.p0.extends: a chain of more than 100 presets (p0 → p1 → p2 → … → p99 → p100)"
    )


def test_overrides_are_parsed_as_yaml():
    found = read_overrides(
        ["grpo.steps=300", "grpo.learning_rate=1e-4", "suite=nano:count,bars", "sft.bf16=true"]
    )
    changed = with_overrides(Preset(), found)
    assert changed.grpo.steps == 300
    assert changed.grpo.learning_rate == 1e-4
    assert changed.suite == "nano:count,bars"
    assert changed.sft.bf16 is True
    assert changed.evaluate == Preset().evaluate


def test_a_mapping_is_merged_into_the_existing_one():
    changed = with_overrides(Preset(), read_overrides(["grpo={steps: 4}"]))
    assert changed.grpo == Preset().grpo.model_copy(update={"steps": 4})


def test_a_field_that_is_a_mapping_is_replaced_whole_or_entry_by_entry(tmp_path):
    (tmp_path / "terms.py").write_text("def one(t):\n    return 0.0\ndef two(t):\n    return 0.0\n")
    one, two = f"{tmp_path}/terms.py:one", f"{tmp_path}/terms.py:two"
    first = with_overrides(Preset(), read_overrides([f"grpo.reward_terms.{one}=0.5"]))
    assert first.grpo.reward_terms == {one: 0.5}
    both = with_overrides(first, {f"grpo.reward_terms.{two}": 0.25})
    assert both.grpo.reward_terms == {one: 0.5, two: 0.25}
    other = with_overrides(both, {"grpo.reward_terms": {two: 1.0}})
    assert other.grpo.reward_terms == {two: 1.0}
    none = with_overrides(both, read_overrides(["grpo.reward_terms={}"]))
    assert none.grpo.reward_terms == {}


def test_a_relative_path_in_an_override_is_of_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "nano").mkdir()
    (tmp_path / "terms.py").write_text("def one(t):\n    return 0.0\n")
    term = f"{tmp_path}/terms.py:one"
    given = {
        "sft": {"base": "mine"},
        "curate.weak": "nano",
        "curate.strong": "owner/model",
        "sandbox.python": "venv/bin/python",
        "grpo.reward_terms.terms.py:one": 0.5,
    }
    found = flat_overrides(Preset(), given)
    assert found == {
        "sft.base": f"{tmp_path}/mine",
        "curate.weak": "nano",
        "curate.strong": "owner/model",
        "sandbox.python": f"{tmp_path}/venv/bin/python",
        f"grpo.reward_terms.{term}": 0.5,
    }
    assert flat_overrides(Preset(), {"sandbox.python": "python3"}) == {"sandbox.python": "python3"}
    whole = flat_overrides(Preset(), {"grpo.reward_terms": {"terms.py:one": 1.0}})
    assert whole == {"grpo.reward_terms": {term: 1.0}}
    monkeypatch.chdir(tmp_path / "mine")
    assert with_overrides(Preset(), found).grpo.reward_terms == {term: 0.5}


def test_relative_paths_of_a_preset_are_of_the_current_folder(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "terms.py").write_text("def one(t):\n    return 0.0\n")
    path = write(
        "presets:\n  p: {sft: {base: mine}, grpo: {reward_terms: {'terms.py:one': 0.5}}}\n"
        "  q: {suite: nano}\n"
    )
    preset = load_preset("p", path)
    term = f"{tmp_path}/terms.py:one"
    assert preset.sft.base == f"{tmp_path}/mine"
    assert preset.grpo.reward_terms == {term: 0.5}
    overrides = flat_overrides(preset, {"grpo.reward_terms.terms.py:one": 0.25})
    assert with_overrides(preset, overrides).grpo.reward_terms == {term: 0.25}
    assert load_preset("q", path) == Preset()


@pytest.mark.parametrize(
    "overrides",
    [
        {"grpo.steps": 2, "grpo": {"steps": 5}},
        {"grpo": {"steps": 5}, "grpo.steps": 2},
        {"sandbox": {"limits": {"images": 3}}, "sandbox.limits.images": 4},
        {"grpo.reward_terms": {"a": 1.0}, "grpo.reward_terms.b": 2.0},
    ],
)
def test_overrides_that_set_the_same_are_refused_however_they_are_written(overrides):
    with pytest.raises(SettingsError, match="is set already: keep one of them"):
        with_overrides(Preset(), overrides)


def test_the_newest_override_of_a_field_wins():
    found = merged_overrides(
        Preset(), {"grpo": {"steps": 6, "beta": 0.5}, "suite": "nano"}, {"grpo.steps": 4}
    )
    assert found == {"grpo.beta": 0.5, "suite": "nano", "grpo.steps": 4}
    terms = merged_overrides(
        Preset(), {"grpo.reward_terms": {"a:b": 1}}, {"grpo.reward_terms.c.py:d": 2}
    )
    assert terms == {"grpo.reward_terms": {"a:b": 1, "c.py:d": 2}}
    assert merged_overrides(Preset(), terms, {"grpo.reward_terms": {}}) == {"grpo.reward_terms": {}}


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["grpo.steps"], "expected KEY=VALUE"),
        (["=3"], "expected KEY=VALUE"),
        (["grpo.steps="], "expected KEY=VALUE"),
        (["grpo.steps=3", "grpo.steps=4"], "grpo.steps is set already"),
        (["grpo.steps=3", "grpo={steps: 4}"], "grpo.steps is set already"),
        (["grpo.steps=[3"], "not valid YAML"),
        (["grpo.step=3"], "unknown key 'grpo.step'; did you mean 'steps'?"),
        (["gpro.steps=3"], "unknown key 'gpro.steps'; did you mean 'grpo'?"),
        (["seed=3"], "unknown key 'seed'"),
        (["grpo.steps.more=3"], "unknown key 'grpo.steps.more'"),
        (["grpo.steps=0"], "--set grpo.steps: Input should be greater than or equal to 1, got 0"),
        (["grpo.steps=many"], "--set grpo.steps: Input should be a valid integer"),
        (["grpo.steps=true"], "--set grpo.steps: it is a boolean"),
        (["grpo=3"], "--set grpo: "),
        (["grpo={}"], "--set grpo: an empty mapping sets nothing"),
        (["sandbox={limits: {}}"], "--set sandbox.limits: an empty mapping sets nothing"),
        (["grpo={stpes: 3}"], "--set grpo.stpes: unknown key 'grpo.stpes'; did you mean 'steps'"),
        (["grpo.epsilon=0.1", "grpo.epsilon_high=-1"], "--set grpo.epsilon_high: Input should"),
        (["grpo.steps=1", "grpo.reward_terms.none=1"], "--set grpo.reward_terms.none: unknown"),
        (["grpo={steps: 3, steps: 4}"], "--set grpo: the key 'steps' is already in line 1"),
        (["grpo.steps=2026-13-45"], "--set grpo.steps: not valid YAML: '2026-13-45' is not"),
        ([f"grpo.steps={'9' * 5000}"], "--set grpo.steps: not valid YAML: '9999"),
        ([f"grpo={'[' * 3000}"], "--set grpo: nested too deeply"),
        (["suite=#mine"], "--set suite: '#mine' is a comment in YAML: quote the value"),
        (["grpo.learning_rate=.inf"], "--set grpo.learning_rate: .inf: write a finite number"),
    ],
)
def test_an_override_without_effect_is_rejected(texts, said):
    with pytest.raises(SettingsError) as error:
        with_overrides(Preset(), read_overrides(texts))
    assert said in str(error.value)
