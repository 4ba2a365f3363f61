"""The tries of the field's pains: how they are run, read and shown; the quick ones of ours."""

import ast
import os
import sys
from pathlib import Path

import pytest

from experiments.pains.environments import TRAINERS, interpreters
from experiments.pains.page import RESULTS, page
from experiments.pains.running import CONTESTANTS, PAINS, Results, run_pains, run_try
from experiments.pains.verdict import FAILS, PASSES, UNTRIED, Verdict

TRIES = Path(__file__).parents[3] / "experiments" / "pains" / "tries"
HERE = {name: Path(sys.executable) for name in CONTESTANTS}


@pytest.fixture(autouse=True)
def path_of_this_process(monkeypatch):
    """Let processes of ours find the packages as this one does."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(one for one in sys.path if one))


def test_every_pain_has_a_try_for_every_contestant():
    assert {path.stem for path in TRIES.glob("*.py")} == set(PAINS)
    for number, name in enumerate(PAINS, 1):
        tree = ast.parse((TRIES / f"{name}.py").read_text(encoding="utf-8"))
        functions = {one.name for one in tree.body if isinstance(one, ast.FunctionDef)}
        assert set(CONTESTANTS) <= functions, name
        assert ast.get_docstring(tree).startswith(f"{number}. "), name


def test_verdicts_come_from_processes_of_their_own():
    lines = []
    here = {name: HERE[name] for name in ("ours", "verifiers")}
    results = run_pains(["tool_collapse"], here, on_result=lines.append)
    assert results.verdicts["tool_collapse", "ours"].result == PASSES
    assert "step 8" in results.verdicts["tool_collapse", "ours"].evidence
    assert results.verdicts["tool_collapse", "verifiers"].result == UNTRIED
    assert lines[0].startswith("tool_collapse, ours: passes. ")
    assert set(results.versions) == {"ours", "verifiers"}


def test_a_try_that_breaks_is_no_verdict():
    with pytest.raises(RuntimeError, match=r"absent, ours: the try broke"):
        run_try("absent", "ours", HERE)


@pytest.mark.slow
def test_ours_leaves_a_lost_episode_out():
    found = run_try("infrastructure_failure", "ours", HERE)
    assert found.result == PASSES
    assert "lost: +0.58, +0.58, -1.15, +0.00" in found.evidence


def test_the_page_counts_and_quotes_what_was_seen():
    verdicts = {
        ("resume", "ours"): Verdict(PASSES, "80 of 80 | <equal>"),
        ("resume", "trl"): Verdict(FAILS, "30 of 81"),
        ("no_docker", "ours"): Verdict(PASSES, "nothing"),
        ("no_docker", "trl"): Verdict(UNTRIED, "no sandbox"),
    }
    text = page(Results({"ours": "0.1 (Python 3.11.7)", "trl": "1.16.0 (Python 3.11.7)"}, verdicts))
    assert "| 13 | Resuming is wrong or missing | passes | fails |" in text
    assert "| 12 | No Docker on clusters | passes | cannot be tried |" in text
    assert "| | passes / fails / cannot be tried | 2 / 0 / 0 | 0 / 1 / 1 |" in text
    assert "- **CodeDance** passes: 80 of 80 \\| &lt;equal>" in text
    assert text.index("12. [No Docker") < text.index("13. [Resuming")


def test_the_committed_results_are_of_all_tries():
    text = RESULTS.read_text(encoding="utf-8")
    for number, name in enumerate(PAINS, 1):
        assert f"### {number}. [{PAINS[name]}](tries/{name}.py)" in text


def test_interpreters_may_be_given():
    given = [f"{name}=/usr/bin/{name}" for name in TRAINERS]
    assert interpreters(CONTESTANTS, given) == {
        "ours": Path(sys.executable),
        **{name: Path(f"/usr/bin/{name}") for name in TRAINERS},
    }
    for wrong in (["trl"], ["nemo=/usr/bin/python"]):
        with pytest.raises(ValueError, match=r"expected .*got"):
            interpreters(["ours"], wrong)
