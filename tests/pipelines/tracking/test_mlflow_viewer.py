"""The viewer in MLflow's artifact tab: a frame with no origin, no address and no storage."""

from __future__ import annotations

import json

import mlflow
import pytest
from codedance.pipelines.config.home import prepare_environment
from codedance.pipelines.runs.session import open_session
from codedance.pipelines.tracking.mlflow.address import Address
from codedance.pipelines.tracking.mlflow.sync import MlflowSync
from codedance.pipelines.viewer import make_viewer
from codedance.pipelines.viewer.page import place_viewer

from ..chromium import open_browser
from ..makers import make_request, make_task, make_trajectory

READY = "document.body?.dataset.ready === 'yes'"
TASKS = 12


def write_page(session, folder, *, inline):
    """A run of a dozen judged tasks, most of which lie beside the page."""
    pipeline = session.store.lineage.begin(make_request("pipeline"))
    run = session.store.lineage.begin(make_request("evaluate"), parent=pipeline.id)
    tasks = [make_task(n) for n in range(TASKS)]
    made = [make_trajectory(task, calls=2) for task in tasks]
    session.store.add_trajectories(tasks, made, stage_run=run.id, phase="grpo/greedy")
    outputs = {"evaluate": run.id}
    session.store.lineage.mark(pipeline.id, "finished", outputs=outputs)
    viewer = make_viewer(
        session.store, session.home, [session.store.lineage.get(pipeline.id)], folder, inline=inline
    )
    return pipeline, viewer


def test_a_page_is_told_where_its_files_are(home, tmp_path):
    with open_session(home, track=False) as session:
        _, viewer = write_page(session, tmp_path, inline=0)
    before = viewer.html.read_text(encoding="utf-8")
    place_viewer(viewer.html, run_id="abc/..&", folder="report", prefix="/ml")
    after = viewer.html.read_text(encoding="utf-8")
    address = "/ml/get-artifact?run_uuid=abc%2F..%26&amp;path=report%2F"
    assert f'<meta name="codedance-mlflow" content="{address}">' in after
    assert len(after) - len(before) == len(address)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("ignore")
def test_the_viewer_shows_what_lies_beside_it_in_mlflows_artifact_tab(
    server, home, tmp_path, monkeypatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
    prepare_environment(home)
    with open_session(home, track=False) as session:
        pipeline, viewer = write_page(session, tmp_path / "report", inline=20_000)
        assert 0 < viewer.inline < viewer.count
        session.tracker.artifact(pipeline.id, tmp_path / "report", folder="report")
        address = Address(server.address, "viewed")
        MlflowSync(home, session.store, address, print).sync(pipeline.id)
    run = find_run(server)
    features = "--disable-features=IsolateSandboxedIframes,IsolateOrigins,site-per-process"
    with open_browser(tmp_path / "browser", features) as page:
        page.resize(1500, 950)
        where = f"experiments/{run.info.experiment_id}/runs/{run.info.run_id}/artifacts/report"
        page.call("Page.navigate", url=f"{server.address}/#/{where}/viewer.html")
        page.wait_in_frame(READY, seconds=300)
        page.complaints.clear()
        look_at_every_row(page)
    shards = [address for address in page.requests if address.endswith(".mjs")]
    assert shards, "nothing was fetched from beside the page"
    assert all(address.startswith(f"{server.address}/get-artifact?") for address in shards)
    ours = [one for one in page.complaints if "blob:" in one or "Refused" in one]
    assert ours == [], "MLflow's own page may complain of other things"


def find_run(server):
    client = mlflow.MlflowClient(server.address)
    experiment = client.get_experiment_by_name("viewed")
    (run,) = client.search_runs([experiment.experiment_id])
    return run


def look_at_every_row(page):
    """Go through the list by key; every episode's code and picture have to appear."""
    for number in range(TASKS):
        key = json.dumps({"key": "j", "bubbles": True})
        page.evaluate_in_frame(f"document.body.dispatchEvent(new KeyboardEvent('keydown', {key}))")
        detail = "document.querySelector('.detail').textContent"
        page.wait_in_frame(f"{detail}.includes('print(0)')", seconds=60)
        page.wait_in_frame("document.querySelector('img')?.naturalWidth > 0", seconds=60)
        assert "could not be loaded" not in page.evaluate_in_frame(detail), f"row {number}"
