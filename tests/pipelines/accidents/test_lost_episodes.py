"""Evaluations with a server that rejects or loses requests, or is unreachable."""

from __future__ import annotations

import json
import os
import signal
import socket

import pytest
from codedance.pipelines.config.home import find_home
from codedance.pipelines.runs.context import Stop
from codedance.pipelines.runs.requests import RunRequest, open_pipeline
from codedance.pipelines.runs.runner import _request_for, run_stage
from codedance.pipelines.runs.session import open_session
from codedance.policies.rollouts.losses import EpisodesRefusedError

from ..makers import make_picture
from ..model_fake import Refusing, model_fake

FLOWS = """
presets:
  smoke:
    max_new_tokens: 16
    curate: {candidates: 12, known: 4, weak: "openai:m", weak_samples: 1, strong_samples: 1}
    evaluate: {limit: 10, batch_size: 32, traces: 1}
    sandbox: {libraries: []}
    server: {base_url: "URL", concurrency: 1, max_retries: 1, timeout_seconds: 10}
"""


@pytest.fixture
def server():
    with model_fake() as fake:
        yield fake


@pytest.fixture
def session(home):
    """A session shared by the commands of a test, so that none opens MLflow."""
    with open_session(home, track=False) as opened:
        yield opened


@pytest.fixture
def judge(codedance, session, server, tmp_path, monkeypatch):
    """Run ``codedance evaluate`` on ten tasks of the server's model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "the-right-key")
    (tmp_path / "flows.yaml").write_text(FLOWS.replace("URL", server.url))
    base = ("evaluate", "--policy", "openai:m", "--preset", "smoke")

    def run(*more):
        return codedance(*base, *more)

    return run


def rows():
    with open_session(find_home(), track=False) as session:
        return session.store.lineage.find(stage="evaluate")


def episodes(run_id):
    with open_session(find_home(), track=False) as session:
        return session.store.episodes(run_id)


def wants_the_right_key(question, headers):
    if headers.get("Authorization") == "Bearer the-right-key":
        return None
    body = {"error": {"message": f"Incorrect API key provided: {headers.get('Authorization')}"}}
    return 401, json.dumps(body)


def test_a_wrong_key_exits_with_three_and_the_servers_message_and_stores_no_verdict(
    judge, server, monkeypatch
):
    server.refusal = wants_the_right_key
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a-wrong-one")
    code, _, stderr = judge()
    assert code == 3
    assert stderr.count("HTTP 401: Incorrect API key provided") == 1
    assert "10 of 10 episodes lost" in stderr
    assert "sk-a-wrong-one" not in stderr
    assert len(server.asked) == 1  # the first rejection ends the batch
    (row,) = rows()
    assert (row.status, row.is_complete) == ("failed", False)
    assert "sk-a-wrong-one" not in str(row)

    monkeypatch.setenv("OPENAI_API_KEY", "the-right-key")
    server.asked.clear()
    code, shown, _ = judge()
    assert code == 0
    assert "all     10 " in shown
    assert len(server.asked) == 20  # greedy and sampled
    (row,) = rows()
    assert (row.status, row.lost) == ("finished", 0)
    assert all(e.is_valid for e in episodes(row.id))

    server.asked.clear()
    assert judge()[0] == 0
    assert server.asked == []


@pytest.mark.parametrize(
    ("status", "text", "words"),
    [
        (404, '{"error": {"message": "The model `m` does not exist"}}', "The model `m` does not"),
        (403, '{"detail": "not your project"}', "HTTP 403: not your project"),
        (429, "slow down", "HTTP 429: slow down"),
        (500, "", "HTTP 500: Internal Server Error"),
        (200, "<html>a web page</html>", "a web page"),
        (400, '{"error": "no such model"}', "HTTP 400: no such model"),
    ],
)
def test_the_reason_of_a_server_that_rejects_all_is_reported_once(
    judge, server, status, text, words
):
    server.refusal = lambda *_: (status, text)
    code, shown, stderr = judge("--limit", "3")
    assert code == 3
    assert stderr.count(words) == 1
    assert "right (95 %)" not in shown
    assert len(server.asked) <= 4
    assert not rows()[0].is_finished


def test_an_unreachable_server_exits_with_three_and_the_reason(judge):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code, _, stderr = judge("--limit", "3", "--base-url", f"http://127.0.0.1:{port}/v1")
    assert code == 3
    assert stderr.count("ConnectError") == 1


def test_three_of_ten_lost_are_shown_as_lost_and_only_they_are_rerun(judge, server):
    server.refusal = Refusing([1, 4, 7], text="busy with other things")
    code, shown, _ = judge()
    assert code == 1
    assert "all     7 " in shown
    assert "m/greedy: 3 episodes lost" in shown
    (row,) = rows()
    assert (row.status, row.outputs["lost"], row.is_complete) == (
        "finished",
        {"m/greedy": 3},
        False,
    )
    lost = {e.task_id: e.accuracy for e in episodes(row.id) if not e.is_valid}
    assert list(lost.values()) == [None, None, None]
    kept = {e.id for e in episodes(row.id) if e.is_valid}

    asked, server.asked[:] = list(server.asked), []
    server.refusal = lambda *_: None
    code, shown, _ = judge()
    assert code == 0
    assert "lost" not in shown
    assert sorted(server.asked) == sorted(asked[n] for n in (1, 4, 7))
    (row,) = rows()
    assert (row.status, row.lost) == ("finished", 0)
    assert kept < {e.id for e in episodes(row.id)}

    server.asked.clear()
    assert judge()[0] == 0
    assert server.asked == []


def test_mostly_lost_episodes_exit_with_three_and_verdicts_are_kept(judge, server):
    server.refusal = Refusing(range(6))
    code, _, stderr = judge()
    assert code == 3
    assert "6 of 10 episodes lost" in stderr
    server.refusal = lambda *_: None
    server.asked.clear()
    assert judge()[0] == 0
    assert len(server.asked) == 6 + 10


def test_only_lost_samples_are_drawn_again(judge, server, tmp_path):
    flows = (tmp_path / "flows.yaml").read_text().replace("limit: 10", "limit: 4, samples: 3")
    (tmp_path / "flows.yaml").write_text(flows)
    server.refusal = Refusing([4, 5, 8])  # 4 greedy ones come first
    assert judge()[0] == 1
    server.asked.clear()
    server.refusal = lambda *_: None
    assert judge()[0] == 0
    assert len(server.asked) == 3
    (row,) = rows()
    sampled = [(e.task_id, e.sample) for e in episodes(row.id) if e.phase == "m/sampled"]
    assert len(set(sampled)) == len(sampled) == 12


def test_an_episode_lost_again_does_not_fail_the_others(judge, server):
    """A request that the server always rejects, such as one too long, stays lost."""
    first = []

    def never(question, headers):
        first.append(question)
        return (400, "too long") if question == first[0] else None

    server.refusal = never
    for _ in range(2):
        code, shown, _ = judge()
        assert code == 1
        assert "episodes lost" in shown


def test_a_stopped_refresh_resumes_when_requested_again(judge, server, session):
    def interrupt(question, headers):
        if len(server.asked) == 5:
            os.kill(os.getpid(), signal.SIGINT)

    assert judge()[0] == 0
    (old,) = rows()
    server.asked.clear()
    server.refusal = interrupt
    assert judge("--refresh")[0] == 130
    assert len(server.asked) == 10  # requests in progress were completed
    session.stop = Stop()
    server.asked.clear()
    server.refusal = lambda *_: None
    code, shown, _ = judge("--refresh")
    assert (code, len(server.asked)) == (0, 10)
    fresh = rows()[0]
    assert len(rows()) == 2
    assert fresh.id != old.id
    assert f"stored as {fresh.id}" in shown

    server.asked.clear()
    assert f"stored as {fresh.id}" in judge()[1]  # the newest run of the same work
    assert server.asked == []
    assert judge("--refresh")[0] == 0
    assert len(server.asked) == 20
    assert len(rows()) == 3


def test_curation_with_a_rejecting_server_is_an_error_with_its_message(judge, server, session):
    server.refusal = lambda *_: (401, "no such key")
    pipeline = open_pipeline(session, RunRequest("smoke"))
    with pytest.raises(EpisodesRefusedError, match=r"^weak: .*HTTP 401: no such key"):
        run_stage(session, "curate", pipeline)
    assert len(server.asked) == 1
    server.refusal = lambda *_: None
    done = run_stage(session, "curate", pipeline)
    assert done.is_finished
    assert all(e.is_valid for e in session.store.episodes(done.id, "weak"))


def test_a_curation_with_lost_episodes_is_completed_and_its_dependents_rerun(
    codedance, judge, server, session, way
):
    server.refusal = Refusing([1, 3])
    assert codedance("curate", "--preset", "smoke", *way)[0] == 1
    pipeline = open_pipeline(session, RunRequest("smoke"))
    (row,) = session.store.lineage.find(stage="curate")
    assert (row.is_finished, row.is_complete, row.lost) == (True, False, 2)
    unscored = row.outputs["reasons"]["unscored"]
    before = _request_for(session, "sft", pipeline).key

    server.refusal = lambda *_: None
    server.asked.clear()
    assert codedance("curate", "--preset", "smoke", *way)[0] == 0
    assert len(server.asked) == 2  # only the lost ones
    (row,) = session.store.lineage.find(stage="curate")
    assert (row.is_complete, row.lost) == (True, 0)
    assert row.outputs["reasons"].get("unscored", 0) == unscored - 2
    after = _request_for(session, "sft", pipeline).key
    assert after != before
    server.asked.clear()
    assert codedance("curate", "--preset", "smoke", *way)[0] == 0
    assert server.asked == []


def test_scale_reports_a_few_lost_episodes(codedance, session, server, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    server.refusal = Refusing([0, 9])
    options = ("--limit", "8", "--samples", "1")
    code, shown, _ = codedance("scale", "--policy", "openai:m", *options)
    assert code == 1
    assert "2 episodes lost and left out: " in shown
    assert "HTTP 400: no" in shown


def test_a_key_that_expires_during_probe_is_reported(codedance, session, server, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    calls = "<code>\n```python\nprint(input_image.size)\n```\n</code>"
    choice = {"message": {"content": calls}, "finish_reason": "stop"}

    def call_answer_expire(question, headers):
        if len(server.asked) <= 3:
            return 200, json.dumps({"choices": [choice]})
        return None if len(server.asked) <= 6 else (401, "key expired")

    server.refusal = call_answer_expire
    code, shown, stderr = codedance("probe", "--policy", "openai:m", "--limit", "3")
    assert code == 3
    assert "HTTP 401: key expired" in stderr
    assert "no call was made" not in shown


def test_play_with_a_rejecting_server_exits_with_three(codedance, session, server, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", "a-key-of-mine")
    server.refusal = lambda *_: (401, "no such key: a-key-of-mine")
    code, shown, stderr = codedance("play", "--policy", "openai:m")
    assert code == 3
    assert stderr.count("HTTP 401: no such key: ***") == 1
    assert "wrong" not in shown


@pytest.mark.parametrize("command", ["scale", "probe"])
def test_other_figures_are_not_computed_from_lost_episodes(
    codedance, session, server, monkeypatch, command
):
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    server.refusal = lambda *_: (404, "no such model")
    code, shown, stderr = codedance(command, "--policy", "openai:m", "--limit", "3")
    assert code == 3
    assert "3 of 3 episodes were lost" in stderr
    assert "HTTP 404: no such model" in stderr
    assert "%" not in shown


def test_an_edited_task_file_is_evaluated_again(codedance, session, server, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    make_picture().save(tmp_path / "a.png")
    row = {"question": "Is it red?", "answer": "5", "image": "a.png"}
    for edit in ({}, {"answer": "7"}):
        (tmp_path / "mine.jsonl").write_text(json.dumps(row | edit))
        server.asked.clear()
        words = ("--suite", str(tmp_path / "mine.jsonl"), "--limit", "1")
        assert codedance("evaluate", "--policy", "openai:m", *words)[0] == 0
        assert server.asked  # the verdict of another file is not reused
    assert len(rows()) == 2
