"""The claims: a shared and resumed plan, verdicts calculated by hand, and the page."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from codedance.pipelines.analysis.emergence import Use
from codedance.pipelines.cli.app import single_app
from codedance.pipelines.cli.exit_codes import FAILED
from codedance.pipelines.store.lineage import StageRequest
from codedance.pipelines.store.store import open_store
from codedance.pipelines.tracking.metrics_file import append_time
from typer.testing import CliRunner

from experiments.claims import COMMAND, claims
from experiments.paper.costs import remaining_seconds, steps_within
from experiments.paper.emergences import coded_share, find_emerged, is_frequent
from experiments.paper.page import write_page
from experiments.paper.plan import make_plan
from experiments.paper.protocol import PACKAGED, Claim, ProtocolError, load_protocol
from experiments.paper.records import mark, other_digests, preset_name_of, read_records
from experiments.paper.results import read_results
from experiments.paper.verdicts import judge_claim

from ..tiny_runs import first_run
from .judgements import figures_of, judged
from .tiny_claims import SHORT_CLAIMS, TINY_CLAIMS

PROGRAM = single_app(claims)


def test_packaged_protocol_has_the_arms_and_claims_of_the_paper():
    protocol = load_protocol()
    names = {arm.name for arm in protocol.arms}
    rewards = ("outcome", "tool_bonus", "bat_sequence", "bat_paper", "bat")
    assert {f"rl/code/{r}/{s}" for r in rewards for s in ("floor", "group")} <= names
    assert {a.interface for a in protocol.arms if a.stage == "sft"} == {"code", "box", "text"}
    assert {a.interface for a in protocol.arms if a.stage == "grpo"} == {"code", "box", "text"}
    assert protocol.arm("more_sft/code").as_long_as == "rl/code/bat/floor"
    assert protocol.arm("rl/code/without_bars_tag").without_families == ("bars", "tag")
    assert protocol.seeds == 5
    assert set(protocol.presets) == {"quick", "full"}
    inferior = next(c for c in protocol.claims if c.name == "bat not inferior")
    assert (len(inferior.second), inferior.above) == (4, -0.02)


def test_digest_covers_the_protocol_but_not_other_sizes_or_estimates(tmp_path):
    text = PACKAGED.read_text()

    def digest(old, new, preset="quick"):
        assert old in text
        path = tmp_path / "changed.yaml"
        path.write_text(text.replace(old, new))
        return load_protocol(path).digest(preset)

    same = load_protocol().digest("quick")
    assert digest("above: -0.02", "above: -0.03") != same
    assert digest("steps: 80\n", "steps: 79\n") != same
    assert digest("steps: 400", "steps: 399") == same
    assert digest("grpo: 2.4", "grpo: 2.5") == same
    assert digest("steps: 400", "steps: 399", "full") != load_protocol().digest("full")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("start: sft/code, scale", "start: sft/cod, scale", "builds on 'sft/cod'"),
        ("first: rl/kept", "first: rl/lost", r"unknown arms: \['rl/lost'\]"),
        ("title: A trial", "tittle: A trial", "tittle"),
        ("{name: rl/box, stage", "{name: rl/code, stage", "two arms"),
        ("seeds: 2", "seeds: [", "cannot be read"),
    ],
)
def test_an_error_in_a_protocol_is_named(tmp_path, old, new, message):
    path = tmp_path / "wrong.yaml"
    assert old in TINY_CLAIMS
    path.write_text(TINY_CLAIMS.replace(old, new))
    with pytest.raises(ProtocolError, match=message):
        load_protocol(path)


def test_unknown_presets_and_patterns_are_rejected(tiny_protocol):
    with pytest.raises(ProtocolError, match="no preset 'huge'"):
        tiny_protocol.sizes("huge")
    with pytest.raises(ProtocolError, match="no arm matches --only 'rl/cod'"):
        make_plan(tiny_protocol, ["rl/cod"])


def test_plan_shares_the_dependencies_of_arms(tiny_protocol):
    nodes = make_plan(tiny_protocol)
    names = [node.name for node in nodes]
    assert len(names) == len(set(names)) == 1 + 2 * len(tiny_protocol.arms)
    for place, node in enumerate(nodes):
        assert set(node.needs) <= set(names[:place])
    needs = {node.name: node.needs for node in nodes}
    assert needs["train more"] == ("curate", "train sft/code", "train rl/code")
    assert needs["judge rl/gap"] == ("train rl/gap",)


def test_only_trains_the_selected_arms_and_their_dependencies(tiny_protocol):
    names = [node.name for node in make_plan(tiny_protocol, ["more", "rl/b*"])]
    assert names == [
        "curate",
        "train sft/code",
        "train rl/code",
        "train more",
        "judge more",
        "train sft/box",
        "train rl/box",
        "judge rl/box",
    ]


def test_records_are_found_by_protocol_for_any_version_of_the_code(store):
    def begin(digest, node, *, seed=0, code="old", status="running"):
        parameters = mark(digest, node)
        request = StageRequest("sft", preset_name_of("quick"), parameters, {}, seed, code)
        run = store.lineage.begin(request)
        store.lineage.mark(run.id, status)
        return run.id

    finished = begin("one", "train a", status="finished")
    begin("one", "train a", code="new")
    going = begin("one", "train a", seed=1, status="interrupted")
    begin("two", "train b")
    found = read_records(store, preset="quick", digest="one")
    assert {place: run.id for place, run in found.items()} == {
        (0, "train a"): finished,
        (1, "train a"): going,
    }
    assert other_digests(store, preset="quick", digest="one") == {"two"}


def test_time_left_is_estimated_from_the_runs(tiny_protocol, store):
    nodes = make_plan(tiny_protocol, ["sft/code"])
    sizes = tiny_protocol.sizes("quick")
    left = [(seed, node) for seed in (0, 1) for node in nodes]
    # estimates: 2 s per curation, 4 steps of 0.1 s, 2 modes of 42 tasks at 0.01 s
    assert remaining_seconds(sizes, left, {}) == pytest.approx(2 * (2 + 0.4 + 0.84))
    request = StageRequest("curate", preset_name_of("quick"), mark("d", "curate"), {}, 0, "code")
    run = store.lineage.begin(request)
    store.lineage.mark(run.id, "finished", outputs={"seconds": 7.0})
    records = {(0, "curate"): store.lineage.get(run.id)}
    assert remaining_seconds(sizes, left[1:], records) == pytest.approx(7 + 2 * (0.4 + 0.84))


def test_more_supervised_steps_fill_the_time_of_reinforcement(tmp_path):
    for step, seconds in enumerate((0.5, 0.3, 0.4), start=1):
        append_time(tmp_path, step, seconds)
    append_time(tmp_path, 3, 0.4)  # repeated after a kill: counts once
    assert steps_within(6.0, like=tmp_path) == 15
    assert steps_within(0.01, like=tmp_path) == 1


def test_noninferiority_must_hold_against_each_arm(tiny_protocol):
    claim = Claim(name="c", says="s", kind="compare", first="a", second=("b", "c"), above=-0.3)
    equal = [[1, 0, 1, 0], [1, 0, 1, 0]]
    better = [[1, 1, 1, 1], [1, 1, 1, 1]]
    held = judge_claim(claim, tiny_protocol, figures_of(a=equal, b=equal, c=equal))
    assert held.verdict == "holds"
    lost = judge_claim(claim, tiny_protocol, figures_of(a=equal, b=equal, c=better))
    assert [one.verdict for one in lost.findings] == ["holds", "does not hold"]
    assert lost.verdict == "does not hold"
    assert (lost.findings[1].better, lost.findings[1].worse) == (0, 4)
    half = judge_claim(claim, tiny_protocol, figures_of(a=equal, b=equal, c=[[1, 1, 1, 1]]))
    assert half.verdict == "not yet decided"


def test_transfer_needs_one_family_at_the_shared_confidence(tiny_protocol):
    claim = next(c for c in tiny_protocol.claims if c.kind == "any_family")
    families = ["bars"] * 4 + ["tag"] * 4
    after = [judged([1, 1, 1, 0, 0, 0, 0, 0], families=families)] * 2
    before = [judged([0, 0, 0, 0, 0, 0, 0, 0], families=families)] * 2
    figures = {
        (arm, seed, mode): some[seed]
        for arm, some in (("rl/kept", after), ("sft/code", before))
        for seed in (0, 1)
        for mode in ("greedy", "sampled")
    }
    found = judge_claim(claim, tiny_protocol, figures)
    assert [one.against for one in found.findings] == ["bars", "tag"]
    assert [one.verdict for one in found.findings] == ["holds", "does not hold"]
    assert found.verdict == "holds"


def test_easy_tasks_are_shown_by_family_with_their_calls(tiny_protocol, store):
    found = read_results(store, tiny_protocol, "quick", range(2))
    one = judged([1, 0, 1], calls=[1, 0, 9], difficulties=["easy", "easy", "hard"])
    figures = {("sft/code", 0, mode): one for mode in ("greedy", "sampled")}
    page = write_page(replace(found, figures=figures))
    easy = page.partition("## Easy tasks by family")[2]
    assert "| `sft/code` | 50.0 (0.50) |" in easy
    assert "| `sft/box` | - (-) |" in easy


def test_before_the_first_run_every_claim_is_open(tiny_protocol, store):
    page = write_page(read_results(store, tiny_protocol, "quick", range(2)))
    assert "**0 of 2 seeds are complete**; 0 of 18 arms are evaluated" in page
    assert page.count("**not yet decided**") == len(tiny_protocol.claims)
    assert "**holds**" not in page
    assert tiny_protocol.stopping_rule in page


def test_emergence_is_computed_from_the_arm_with_shares_of_all_trajectories(
    tiny_protocol, finished
):
    grpo = finished.store.lineage.get(first_run(finished).outputs["grpo"])
    programs = finished.store.programs(grpo.id)
    first, last = coded_share(programs, None)
    assert 0.0 <= min(first, last) <= max(first, last) <= 1.0
    claim = next(c for c in tiny_protocol.claims if c.kind == "emergence")
    records = {(0, "train rl/gap"): grpo}
    found = find_emerged(claim, tiny_protocol, finished.store, records, range(2))
    assert found.verdict == "not yet decided"
    assert set(found.frequent) == {0}


def test_a_composition_is_frequent_by_share_and_by_count(tiny_protocol):
    claim = next(c for c in tiny_protocol.claims if c.kind == "emergence")
    use = Use("crop + count", 0.0, first=0.0, last=0.05, right=1.0, count=10, first_step=3)
    assert is_frequent(use, claim)
    assert not is_frequent(replace(use, last=0.049), claim)
    assert not is_frequent(replace(use, count=9), claim)


def test_report_trains_nothing_and_writes_to_the_given_path(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY_CLAIMS)
    shown = CliRunner().invoke(PROGRAM, ["--report", "--protocol", "tiny.yaml"])
    assert shown.exit_code == 0, shown.output
    assert "not yet decided  code over box" in shown.output
    assert not (tmp_path / "docs").exists()  # nothing is written to the user's folder
    page = (home.root / "claims" / "results.md").read_text()
    assert page.startswith("# Results: A trial\n")
    assert "$ python -m experiments.claims --preset quick --protocol tiny.yaml --report " in page
    assert not home.stages.exists()


def test_every_packaged_protocol_is_valid_and_its_page_has_its_command(home, tmp_path):
    """Further protocols answer questions raised by the first; their changes have other digests."""
    settled = load_protocol().sizes("quick").preset
    longer = PACKAGED.with_name("longer.yaml")
    protocol = load_protocol(longer)
    sizes = protocol.sizes("quick").preset
    assert sizes.grpo.steps == 2 * settled.grpo.steps
    same = sizes.grpo.model_copy(update={"steps": settled.grpo.steps})
    assert sizes.model_copy(update={"grpo": same}) == settled
    out = tmp_path / "longer.md"
    command = ["--report", "--protocol", str(longer), "--output", str(out)]
    assert CliRunner().invoke(PROGRAM, command).exit_code == 0
    assert f"--protocol {longer} --output {out} --jobs 2" in out.read_text()
    assert "0 of 3 seeds" in out.read_text()
    assert "no demonstration shows" not in out.read_text()
    fewer = load_protocol(PACKAGED.with_name("settled.yaml"))
    assert fewer.sizes("quick").preset.suite == "nano:area,bars,count,maze"
    assert set(fewer.arms) == set(protocol.arms)
    room = load_protocol(PACKAGED.with_name("emerging.yaml"))
    assert room.arms[0].easy_alone == ("tag",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only", "rl/nothing"], "no arm matches --only 'rl/nothing'"),
        (["--preset", "huge"], "no preset 'huge'"),
        (["--protocol", "missing.yaml"], "missing.yaml cannot be read"),
    ],
)
def test_an_invalid_option_is_rejected_before_any_work(home, tmp_path, options, message):
    shown = CliRunner().invoke(PROGRAM, [*options])
    assert isinstance(shown.exception, ProtocolError)
    assert message in str(shown.exception)
    assert not home.stages.exists()


@pytest.mark.parametrize("option", [("--jobs", "2"), ("--only", "sft/*")])
def test_an_option_that_a_report_would_ignore_is_rejected(home, option):
    assert CliRunner().invoke(PROGRAM, ["--report", *option]).exit_code == 2


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_killed_claims_resume_and_no_finished_arm_is_rerun(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(SHORT_CLAIMS)
    command = [*COMMAND, "--protocol", "tiny.yaml", "--seeds", "2"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as killed:
        for line in killed.stderr:  # kill it in the middle of reinforcement
            if line.startswith("grpo "):
                break
        killed.kill()
    before = {run.id: run for run in begun(home)}
    assert {"curate", "sft", "grpo"} <= {run.stage for run in before.values()}
    ended = subprocess.run([*command, "--jobs", "2"], capture_output=True, text=True, check=False)
    assert ended.returncode == FAILED
    assert "train nothing" in ended.stderr
    assert "without_families leaves no task" in ended.stderr
    after = {run.id: run for run in begun(home)}
    for run in before.values():
        if run.is_finished:
            assert after[run.id] == run
    nodes = [(run.seed, run.parameters["claims"]["node"]) for run in after.values()]
    assert len(nodes) == len(set(nodes)) == 2 * 8  # each once; dependents of the failed arm never
    left = [run for run in after.values() if not run.is_finished]
    assert [run.parameters["claims"]["node"] for run in left] == ["train nothing"] * 2
    page = (home.root / "claims" / "results.md").read_text()
    assert "**0 of 2 seeds are complete**; 6 of 8 arms are evaluated" in page
    assert "holds" in page.split("## Arms")[0].split("longer steps")[1].splitlines()[0]


def begun(home):
    with open_store(home) as store:
        return store.lineage.find(preset=preset_name_of("quick"))
