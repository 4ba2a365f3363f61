"""A policy acts with the tool that it was trained with, in every use."""

import json

import pytest
from codedance.envs.protocol import system_prompt
from codedance.policies import load_policy, rollout
from codedance.policies.analysis.probe import crops_held, probe
from codedance.policies.analysis.scaling import scale
from codedance.policies.models.model_folder import ModelFolderError, note_interface, read_notes
from codedance.policies.rollouts.trained_with import open_episode, trained_interface

from ..players import PlannedPolicy, task


class Cropper(PlannedPolicy):
    """Crops once, then answers; does not write code."""

    interface = "box"

    def __init__(self):
        super().__init__(
            lambda talk: "<box>0, 0, 8, 8</box>" if talk.turn == 0 else "<answer>5</answer>"
        )


def test_rollouts_probe_and_scaling_use_the_trained_tool(sandbox):
    policy, tasks = Cropper(), [task(0), task(1)]
    played = rollout(policy, tasks, sandbox=sandbox)
    assert [len(one.tool_turns) for one in played] == [1, 1]
    assert not any(one.tool_turns[0].has_failed for one in played)
    assert played[0].tool_turns[0].execution.images[0].size == (8, 8)
    probed = probe(policy, list(zip(tasks, played, strict=True)), sandbox=sandbox)
    assert {call.change for call in probed} == {"withheld", "blanked"}
    points = scale(policy, tasks, sandbox=sandbox, turns=(1, 2), samples=(1,))
    assert {(one.method, one.amount): one.accuracy for one in points}["turns", 2] == 1.0
    assert crops_held(list(zip(tasks, played, strict=True))) == []


def test_a_named_tool_takes_precedence_over_the_trained_one(sandbox):
    (played,) = rollout(Cropper(), [task()], sandbox=sandbox, interface="text", max_turns=2)
    assert not played.tool_turns


def test_a_policy_without_a_named_tool_writes_code(sandbox):
    policy = PlannedPolicy(lambda talk: "<answer>5</answer>")
    assert trained_interface(policy) == "code"
    with open_episode(task(), sandbox, policy) as episode:
        assert episode.interface == "code"
        assert episode.messages[0].text != system_prompt("code")
    policy.system_prompt = None
    with open_episode(task(), sandbox, policy, interface="box") as episode:
        assert episode.messages[0].text == system_prompt("box")


def test_a_folder_records_the_tool_its_model_was_trained_with(tiny_folder, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for path in tiny_folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "codedance.json").write_text('{"system_prompt": "", "unknown": [1]}')
    note_interface(folder, "box")
    assert json.loads((folder / "codedance.json").read_text())["unknown"] == [1]
    assert read_notes(folder).system_prompt == ""
    assert trained_interface(load_policy(folder, device="cpu")) == "box"
    (folder / "codedance.json").unlink()
    note_interface(folder, "text")
    assert read_notes(folder).interface == "text"
    (folder / "codedance.json").write_text('{"interface": "voice"}')
    with pytest.raises(ModelFolderError, match="interface is 'voice', expected one of code, box"):
        read_notes(folder)
