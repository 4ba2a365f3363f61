"""Chosen families of a suite: each task exactly once, alternating, without drawing others."""

import json
from collections import Counter

import pytest
from codedance.envs import Item, load_suite, register_family
from codedance.envs.suites import SuiteError
from codedance.envs.suites import generated as families_module
from codedance.envs.suites.filtered import ChosenFamilies
from codedance.envs.suites.nano import suite as nano_module
from codedance.envs.visual_code import VisualCodeEnv
from codedance.pipelines.cli.episodes.play import find_task
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ..toys import make_task, noise


class Unindexed:
    """A third-party suite with only the members of `Suite`."""

    name, split = "toy", "train"

    def __init__(self, letters):
        self.tasks = [
            make_task(id=f"toy/{number}", family=letter) for number, letter in enumerate(letters)
        ]
        self.families = tuple(dict.fromkeys(letters))
        self.reads = Counter()

    def __len__(self):
        return len(self.tasks)

    def __getitem__(self, index):
        self.reads[index] += 1
        return self.tasks[index]

    def task(self, task_id):
        return next(task for task in self.tasks if task.id == task_id)


def write_rows(folder, letters):
    noise().save(folder / "a.png")
    rows = [
        {"image": "a.png", "question": "?", "answer": "5", "family": letter} for letter in letters
    ]
    (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_suite(folder / "mine.jsonl")


def ids(suite):
    return [suite[index].id for index in range(len(suite))]


def test_nine_tasks_of_one_family_and_one_of_another_come_once_each(tmp_path):
    suite = write_rows(tmp_path, "aaaaabaaaa")
    chosen = ChosenFamilies(suite, ["a", "b"])
    assert len(chosen) == 10
    assert sorted(ids(chosen)) == sorted(ids(suite))
    assert "".join(chosen[index].family for index in range(10)) == "abaaaaaaaa"
    assert ids(ChosenFamilies(suite, ["b"])) == ["mine/6"]
    assert ids(chosen)[:3] == ["mine/1", "mine/6", "mine/2"]


@given(st.text("abcd", min_size=1, max_size=40), st.data())
def test_every_task_of_the_chosen_families_comes_exactly_once_and_alternates(letters, data):
    suite = Unindexed(letters)
    names = data.draw(st.permutations(suite.families))
    names = names[: data.draw(st.integers(1, len(names)))]
    chosen = ChosenFamilies(suite, names)
    found = [chosen[index] for index in range(len(chosen))]
    assert sorted(task.id for task in found) == sorted(
        task.id for task in suite.tasks if task.family in names
    )
    for name in names:  # in the suite's order within a family
        numbers = [int(task.id.partition("/")[2]) for task in found if task.family == name]
        assert numbers == sorted(numbers)
    least = min(letters.count(name) for name in names)
    begin = [task.family for task in found[: least * len(names)]]
    assert begin == list(names) * least


def test_a_suite_without_an_index_of_families_is_read_once():
    suite = Unindexed("abacabaa")
    chosen = ChosenFamilies(suite, ["b", "c"])
    assert suite.reads == Counter(range(8))
    assert ids(chosen) == ["toy/1", "toy/3", "toy/5"]
    with pytest.raises(IndexError, match="0 to 2"):
        chosen[3]
    assert chosen.task("toy/3").family == "c"
    with pytest.raises(KeyError):
        chosen.task("toy/0")


def test_a_repeated_family_counts_once_and_a_string_is_one_family():
    suite = Unindexed("abab")
    assert ids(ChosenFamilies(suite, ["b", "b"])) == ["toy/1", "toy/3"]
    assert ids(ChosenFamilies(suite, "b")) == ["toy/1", "toy/3"]
    assert ids(ChosenFamilies(ChosenFamilies(suite, ["a", "b"]), ["b"])) == ["toy/1", "toy/3"]


@pytest.fixture
def drawn(monkeypatch):
    """Record of the tasks drawn from the nano suite and from a custom family."""
    found = []
    make_nano_task = nano_module.make_task

    def make(family_name, difficulty, split, seed):
        found.append(family_name)
        return make_nano_task(family_name, difficulty, split, seed)

    def draw(rng, difficulty):
        found.append("shade")
        return Item("How red?", Image.new("RGB", (8, 8)), str(int(rng.integers(256))))

    monkeypatch.setattr(nano_module, "make_task", make)
    monkeypatch.setattr(families_module, "_FAMILIES", {})
    register_family("nano", "shade")(draw)
    return found


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_custom_family_in_nano_is_chosen_without_drawing_the_others(drawn, split):
    suite = load_suite("nano:shade,count", split=split)
    count, own = (1_000_000, 142_857) if split == "train" else (2_000, 285)
    assert len(suite) == own + len(range(3, count, 7))
    assert drawn == []
    assert [suite[index].family for index in range(4)] == ["shade", "count"] * 2
    assert suite[2].id == f"nano/shade/{split}/medium/0"
    assert drawn == ["shade", "count", "shade", "count", "shade"]


def test_play_finds_a_custom_family_without_drawing_the_others(drawn):
    assert find_task("nano", "shade", "hard", 1).id == "nano/shade/test/hard/1"
    assert set(drawn) == {"shade"}


def test_a_custom_family_may_not_have_the_name_of_a_nano_family(drawn):
    register_family("nano", "count")(lambda rng, difficulty: None)
    with pytest.raises(SuiteError, match=r"\['count'\] of its own"):
        load_suite("nano")


def test_nano_families_still_alternate():
    whole = load_suite("nano", split="test")
    chosen = ChosenFamilies(whole, ["maze", "count"])
    for index in (0, 1, 2, 3, 100, 101):
        place, number = divmod(index, 2)
        assert chosen[index].id == whole[place * 7 + (6, 3)[number]].id


def test_an_environment_draws_only_the_chosen_families_of_a_file(tmp_path, sandbox):
    suite = write_rows(tmp_path, "aaaaabaaaa")
    env = VisualCodeEnv(suite, families=["b"], sandbox=sandbox)
    assert {env.reset(seed=seed)[1]["task_id"] for seed in range(5)} == {"mine/6"}
    assert env.reset(options={"task_id": "mine/6"})[1]["task_id"] == "mine/6"
    with pytest.raises(ValueError, match="mine/1"):
        env.reset(options={"task_id": "mine/1"})
    env.close()
