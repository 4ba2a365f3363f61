"""The store returns stored data unchanged, and stores whole batches or nothing."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from codedance.envs.types import Action, Ending, Turn
from codedance.pipelines.store.connection.errors import StoreError, StoreFullError
from codedance.pipelines.store.images import ImageFolder, pixel_digest
from codedance.pipelines.store.schema import TurnRow
from codedance.pipelines.store.store import open_store
from codedance.sandbox import Outcome
from sqlalchemy import func, select

from ..makers import make_lost, make_picture, make_request, make_task, make_trajectory


@pytest.fixture
def run(store):
    return store.lineage.begin(make_request())


def add(store, run, tasks, trajectories, phase="weak", step=0):
    return store.add_trajectories(tasks, trajectories, stage_run=run.id, phase=phase, step=step)


def test_trajectory_is_read_back_unchanged(store, run):
    task = make_task()
    given = make_trajectory(task, calls=2, failed=1)
    add(store, run, [task], [given])
    (episode,) = store.episodes(run.id)
    (back,) = store.trajectories([episode.id])

    for name in ("task_id", "policy_id", "seed", "ending", "accuracy", "answer", "reward_terms"):
        assert getattr(back, name) == getattr(given, name), name
    assert back.tokens == given.tokens
    assert back.pass_rate == 0.5
    for ours, theirs in zip(back.turns, given.turns, strict=True):
        assert (ours.text, ours.action, ours.has_evidence) == (
            theirs.text,
            theirs.action,
            theirs.has_evidence,
        )
        if theirs.execution is not None:
            assert ours.execution.digest == theirs.execution.digest
            assert ours.execution.wall_seconds == 0.25
    for ours, theirs in zip(back.conversation(), given.conversation(), strict=True):
        assert (ours.role, ours.text) == (theirs.role, theirs.text)
        assert [pixel_digest(i) for i in ours.images] == [pixel_digest(i) for i in theirs.images]


def test_task_is_read_back_with_its_images(store):
    given = make_task(3, choices=("a", "b"), tolerance=0.5)
    key = store.add_tasks([given])[given.id]
    back = store.tasks([key])[key]
    for name in ("id", "family", "split", "question", "answer", "answer_kind", "choices"):
        assert getattr(back, name) == getattr(given, name), name
    assert pixel_digest(back.images[0]) == pixel_digest(given.images[0])
    assert dict(back.provenance) == {"seed": "3"}


def test_names_may_be_of_any_length(store):
    name = "count " * 100
    task = make_task(family=name)
    run = store.lineage.begin(make_request(stage="pipeline"))
    add(store, run, [task], [make_trajectory(task, reward_terms={name: 1.0})], phase=name)
    (episode,) = store.episodes(run.id, name)
    assert episode.family == name
    assert store.scores(run.id) == {episode.id: {name: 1.0}}


def test_same_id_with_another_answer_is_another_task(store):
    first, second = make_task(), make_task(answer="4")
    assert store.add_tasks([first])[first.id] != store.add_tasks([second])[second.id]


def test_figures_of_an_episode_are_counted(store, run):
    task = make_task()
    add(store, run, [task], [make_trajectory(task, calls=3, failed=1, accuracy=0.0)])
    (episode,) = store.episodes(run.id)
    assert (episode.tool_calls, episode.tool_successes, episode.accuracy) == (3, 2, 0.0)
    assert episode.true_answer == "3"


def test_lost_sessions_are_counted_by_policy_and_task(store, run):
    tasks = [make_task(0), make_task(1)]
    played = [replace(make_trajectory(tasks[0]), sessions_lost=lost) for lost in (2, 0, 1)]
    add(store, run, tasks, [*played, make_trajectory(tasks[1])])
    assert store.session_losses(run.id) == {(played[0].policy_id, tasks[0].id): 3}
    episodes = store.episodes(run.id)
    assert [one.sessions_lost for one in episodes] == [2, 0, 1, 0]
    assert store.trajectories([episodes[0].id])[0].sessions_lost == 2


def test_stored_trajectories_are_not_stored_again(store, run):
    tasks = [make_task(0), make_task(1)]
    both = [make_trajectory(task) for task in tasks for _ in range(2)]
    assert add(store, run, tasks, both[:2]) == 2
    assert add(store, run, tasks, both) == 2
    assert add(store, run, tasks, both) == 0
    keys = store.add_tasks(tasks)
    assert store.stored_samples(run.id, "weak") == {keys[t.id]: 2 for t in tasks}


def test_repeated_steps_can_be_deleted(store, run):
    task = make_task()
    for step in (1, 2, 3):
        add(store, run, [task], [make_trajectory(task)], step=step)
    assert store.forget_steps(run.id, "weak", after=1) == 2
    assert [e.step for e in store.episodes(run.id)] == [1]
    turns = store.database.run(lambda session: session.scalar(select(func.count(TurnRow.number))))
    assert turns == 2


def test_any_text_can_be_stored(store, run):
    task = make_task()
    wild = "\ud800 \0 <script> 🙂 \x1b[2J"
    turn = Turn(wild, Action("malformed", wild, wild))
    given = make_trajectory(task, answer=wild, turns=(turn,), ending=Ending.MALFORMED)
    add(store, run, [task], [given])
    (back,) = store.trajectories([store.episodes(run.id)[0].id])
    assert back.turns[0].text == "\\ud800 \\x00 <script> 🙂 \x1b[2J"


def test_lost_episode_has_no_accuracy(store, run):
    task = make_task()
    add(store, run, [task], [make_lost(task)])
    (episode,) = store.episodes(run.id)
    assert episode.accuracy is None
    assert not episode.is_valid


def test_full_disk_leaves_no_partial_image(tmp_path):
    import resource

    folder = ImageFolder(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    picture = make_picture(0, (256, 256))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(StoreFullError, match="no space left"):
            folder.put(picture)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.glob("*/*")) == []
    assert folder.get(folder.put(picture)).size == (256, 256)


def test_same_image_is_one_file(tmp_path):
    folder = ImageFolder(tmp_path)
    assert folder.put(make_picture(1)) == folder.put(make_picture(1))
    assert len(list(tmp_path.rglob("*.png"))) == 1


def test_changed_image_is_detected(tmp_path):
    folder = ImageFolder(tmp_path)
    digest = folder.put(make_picture(1))
    make_picture(2).save(folder.path(digest))
    with pytest.raises(StoreError, match="was changed"):
        folder.get(digest)


def test_missing_image_is_a_store_error(tmp_path):
    with pytest.raises(StoreError, match="missing"):
        ImageFolder(tmp_path).get("0" * 64)


def test_concurrent_writers_lose_nothing(home, store, run):
    tasks = [make_task(n) for n in range(12)]

    def write(part):
        with open_store(home) as own:
            for task in part:
                add(own, run, [task], [make_trajectory(task)])

    threads = [threading.Thread(target=write, args=(tasks[n::3],)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.episodes(run.id)) == 12


def test_scores_of_a_scoring_are_replaced(store, run):
    task = make_task()
    add(store, run, [task], [make_trajectory(task)])
    number = store.episodes(run.id)[0].id
    store.add_scores("second", {number: {"accuracy": 0.0, "old": 1.0}})
    store.add_scores("second", {number: {"accuracy": 1.0}})
    assert store.scores(run.id, scoring="second") == {number: {"accuracy": 1.0}}
    assert store.scores(run.id)[number]["format"] == -0.2


def test_tasks_that_failed_to_be_stored_are_stored_the_next_time(store, tmp_path):
    task = make_task()
    place = store.images.root
    place.parent.mkdir(exist_ok=True)
    place.write_text("no folder")
    with pytest.raises(StoreError, match="could not write"):
        store.add_tasks([task])
    place.unlink()
    assert list(store.tasks(list(store.add_tasks([task]).values())))


def test_unknown_trajectory_is_an_error(store):
    with pytest.raises(StoreError, match="not in the store"):
        store.trajectories([7])


def test_a_handled_error_is_read_back(store, run):
    task = make_task()
    given = make_trajectory(task, calls=1)
    first = given.turns[0]
    marked = replace(first.execution, has_handled_error=True)
    hidden = replace(given, turns=(replace(first, execution=marked), *given.turns[1:]))
    add(store, run, [task], [hidden])
    add(store, run, [task], [given], step=1)
    back = [store.trajectories([one.id])[0].turns[0].execution for one in store.episodes(run.id)]
    assert [one.has_handled_error for one in back] == [True, False]
    assert [one.outcome for one in back] == [Outcome.OK] * 2
    assert [len(one.blocks) for one in store.programs(run.id)] == [1, 1]
