"""Demonstrations of a cold start by interface: the same tasks, with other tools."""

from dataclasses import replace

import pytest
from codedance.envs.parsing import parse_action
from codedance.pipelines.analysis.emergence import training_emergence
from codedance.pipelines.config.settings import GRPOSettings, Preset, SFTSettings
from codedance.pipelines.runs.context import StageContext
from codedance.pipelines.runs.progress import PlainProgress
from codedance.pipelines.runs.runner import StageError
from codedance.pipelines.stages.curate import run_curate
from codedance.pipelines.stages.demonstrations import (
    BOX_PHASE,
    load_demonstrations,
    shown_demonstrations,
)
from codedance.pipelines.stages.draws import check_family_names
from codedance.pipelines.stages.grpo import load_tasks, run_grpo
from codedance.pipelines.stages.sft import run_sft

from ..makers import make_picture, make_request
from ..tiny_runs import first_run


def context_of(session, **changes):
    curation = session.store.lineage.get(first_run(session).outputs["curate"])
    run = session.store.lineage.begin(make_request("sft", inputs={"curate": curation.id}))
    preset = Preset(**changes)
    return StageContext(
        run=run,
        preset=preset,
        folder=session.home.stages / run.id,
        store=session.store,
        tracker=session.tracker,
        progress=PlainProgress(),
        sandbox=lambda: session.sandbox(preset.sandbox),
        stop=session.stop,
    )


def kinds(demonstration, interface):
    texts = [m.text for m in demonstration.messages if m.role == "assistant"]
    return [parse_action(text, interface=interface).kind for text in texts]


def said(demonstrations):
    return [(d.task.id, d.tags, [m.text for m in d.messages]) for d in demonstrations]


def with_tools(demonstrations):
    return {d.task.id for d in demonstrations if "tools" in d.tags}


@pytest.mark.slow
def test_every_interface_has_the_same_tasks_in_the_same_order(finished):
    shown = {
        name: shown_demonstrations(context_of(finished, interface=name))
        for name in ("code", "box", "text")
    }
    ids = [[d.task.id for d in some] for some in shown.values()]
    assert ids[0] == ids[1] == ids[2]
    assert with_tools(shown["code"])
    for name, some in shown.items():
        assert all(kinds(d, name)[-1] == "answer" for d in some)
    assert all(kinds(d, "text") == ["answer"] for d in shown["text"])
    assert {d.task.id for d in shown["box"] if "code" in kinds(d, "box")} <= with_tools(
        shown["code"]
    )


def test_with_code_the_curated_trajectories_are_the_demonstrations(finished):
    context = context_of(finished)
    curated = load_demonstrations(finished.store, context.input("curate"))
    assert said(shown_demonstrations(context)) == said(curated)


def test_crops_are_played_in_the_environment_and_stored(finished):
    context = context_of(finished, interface="box")
    shown = [d for d in shown_demonstrations(context) if "code" in kinds(d, "box")]
    stored = finished.store.episodes(context.run.id, BOX_PHASE)
    assert shown
    assert {d.task.id for d in shown} <= {e.task_id for e in stored}
    assert all(e.accuracy == 1.0 and e.tool_successes == e.tool_calls for e in stored)
    assert all(len(d.messages[2].images) == 1 for d in shown)  # the crop was returned


def test_families_shown_directly_lose_only_their_tools(finished):
    whole = shown_demonstrations(context_of(finished))
    tools = with_tools(whole)
    family = next(d.task.family for d in whole if d.task.id in tools)
    gap = shown_demonstrations(context_of(finished, sft=SFTSettings(shown_directly=(family,))))
    for before, after in zip(whole, gap, strict=True):
        if before.task.family == family:
            assert kinds(after, "code") == ["answer"]
        else:
            assert said([after]) == said([before])


def test_easy_alone_families_have_only_easy_tasks_without_a_tool(finished):
    whole = shown_demonstrations(context_of(finished))
    tools = with_tools(whole)
    family = next(d.task.family for d in whole if d.task.id in tools)
    gap = shown_demonstrations(context_of(finished, sft=SFTSettings(easy_alone=(family,))))
    of_it = [d for d in whole if d.task.family == family]
    easy = [d.task.id for d in of_it if d.task.difficulty == "easy"]
    assert len(easy) < len(of_it)
    assert [d.task.id for d in gap if d.task.family == family] == easy
    assert all(kinds(d, "code") == ["answer"] for d in gap if d.task.family == family)
    others = [d for d in whole if d.task.family != family]
    assert said([d for d in gap if d.task.family != family]) == said(others)


@pytest.mark.parametrize("setting", ["shown_directly", "easy_alone"])
def test_emergence_excludes_omitted_demonstrations(finished, setting):
    grpo = finished.store.lineage.get(first_run(finished).outputs["grpo"])
    cold = finished.store.lineage.get(grpo.inputs["sft"])
    curation = finished.store.lineage.get(grpo.inputs["curate"])
    families = {
        d.task.family for d in load_demonstrations(finished.store, curation) if "tools" in d.tags
    }
    family = sorted(families)[0]
    parameters = {"sft": {setting: [family]}}
    gap = finished.store.lineage.begin(make_request("sft", parameters=parameters))
    of_gap = replace(grpo, inputs={**grpo.inputs, "sft": gap.id})
    assert cold.parameters["sft"][setting] == []
    assert training_emergence(finished.store, grpo, family=family).demonstrations > 0
    assert training_emergence(finished.store, of_gap, family=family).demonstrations == 0
    assert training_emergence(finished.store, of_gap).demonstrations > 0


def test_families_can_be_excluded_from_reinforcement_learning(finished):
    curation = finished.store.lineage.get(first_run(finished).outputs["curate"])
    everything = load_tasks(finished.store, curation)
    families = {task.family for task in everything}
    left_out = sorted(families)[0]
    kept = load_tasks(finished.store, curation, without=[left_out])
    assert {task.family for task in kept} == families - {left_out}
    with pytest.raises(StageError, match="without_families"):
        load_tasks(finished.store, curation, without=families)


@pytest.mark.parametrize("declared", [run_curate, run_sft, run_grpo])
@pytest.mark.parametrize(
    "changes",
    [
        {"sft": SFTSettings(shown_directly=("tga",))},
        {"sft": SFTSettings(easy_alone=("tga",))},
        {"grpo": GRPOSettings(without_families=("bars", "tga"))},
    ],
)
def test_an_unknown_family_is_refused_before_any_work(finished, declared, changes):
    with pytest.raises(StageError, match=r"nano has no family 'tga', only .*; did you mean 'tag'"):
        declared.run(context_of(finished, **changes))


def test_families_are_those_of_the_whole_suite_or_of_the_users_file(tmp_path):
    left_out = GRPOSettings(without_families=("tag",))
    check_family_names(Preset(suite="nano:count,bars", grpo=left_out))
    row = '{"question": "How many?", "answer": "3", "family": "cells", "image": "a.png"}\n'
    file = tmp_path / "mine.jsonl"
    file.write_text(row * 2, encoding="utf-8")
    make_picture().save(tmp_path / "a.png")
    with pytest.raises(StageError, match="has no family 'tag', only cells"):
        check_family_names(Preset(suite=str(file), grpo=left_out))
    check_family_names(Preset(suite=str(file)))
