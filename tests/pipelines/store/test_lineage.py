"""The lineage finds runs by name and by the key of their work."""

from __future__ import annotations

from dataclasses import replace

import pytest
from codedance.pipelines.store.connection.errors import StoreError

from ..makers import make_request


def test_key_depends_on_everything_that_determines_the_result():
    base = make_request("sft", parameters={"steps": 1}, inputs={"curate": "a"})
    others = [
        replace(base, stage="grpo"),
        replace(base, parameters={"steps": 2}),
        replace(base, inputs={"curate": "b"}),
        replace(base, seed=1),
        replace(base, code_version="other"),
    ]
    assert len({base.key, *(other.key for other in others)}) == 6
    assert replace(base, preset="another name", git_commit="abc").key == base.key


def test_run_is_found_by_a_prefix_of_its_id(store):
    run = store.lineage.begin(make_request())
    assert store.lineage.get(run.id[:-2]).id == run.id
    assert run.id.startswith("curate-")


def test_ambiguous_or_unknown_names_are_rejected(store):
    for _ in range(2):
        store.lineage.begin(make_request())
    with pytest.raises(StoreError, match="no single run"):
        store.lineage.get("curate-")
    with pytest.raises(StoreError, match="`codedance runs` lists them"):
        store.lineage.get("nothing")


def test_latest_is_the_newest_pipeline_run(store):
    with pytest.raises(StoreError, match="no run yet"):
        store.lineage.get("latest")
    store.lineage.begin(make_request("pipeline"))
    second = store.lineage.begin(make_request("pipeline", seed=1))
    store.lineage.begin(make_request("curate"))
    assert store.lineage.get("latest").id == second.id


def test_outputs_are_kept_when_only_the_status_changes(store):
    run = store.lineage.begin(make_request())
    store.lineage.mark(run.id, "finished", outputs={"model": "folder", "seconds": 1.5})
    store.lineage.mark(run.id, "running")
    again = store.lineage.get(run.id)
    assert again.outputs["model"] == "folder"
    assert (again.status, again.ended_at, again.seconds) == ("running", None, 1.5)
