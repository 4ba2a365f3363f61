"""The oracle and the teacher act in the real environment and read only the conversation."""

import json
from collections import Counter
from pathlib import Path

import pytest
from codedance.envs.episode import Episode
from codedance.envs.suites.nano.suite import FAMILIES, NanoSuite, make_task
from codedance.envs.types import AnswerKind, Difficulty, Ending, Message, Task
from codedance.policies.interface import Conversation, Sampling
from codedance.policies.scripted.nlvr_program import judge
from codedance.policies.scripted.oracle import OraclePolicy, next_text, tool_output
from codedance.policies.scripted.teacher import (
    TeacherPolicy,
    TeacherStyle,
    WeakPolicy,
    direct_demonstration,
)
from codedance.sandbox import open_sandbox
from PIL import Image

SHARED = Path(__file__).parents[4] / "shared" / "data"
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the shared data sets are not on this machine"
)


@pytest.fixture(scope="module")
def sandbox():
    with open_sandbox("local") as opened:
        yield opened


def play(policy, task, sandbox, seed=0):
    with Episode(task, sandbox, system_prompt="", seed=seed) as episode:
        while episode.ending is None:
            conversation = Conversation(list(episode.messages), seed)
            episode.step(policy.reply([conversation], sampling=Sampling())[0].text)
        return episode.trajectory(policy.id)


def test_the_oracle_answers_every_family_and_difficulty(sandbox):
    suite = NanoSuite("test")
    trajectories = [play(OraclePolicy(), suite[i], sandbox) for i in range(21)]
    assert [t.accuracy for t in trajectories] == [1.0] * 21
    assert {len(t.tool_turns) for t in trajectories} == {1}


def test_the_oracle_reports_an_unknown_question(sandbox):
    task = Task("x", "x", "x", "test", "Who painted this?", (Image.new("RGB", (9, 9)),), "me")
    trajectory = play(OraclePolicy(), task, sandbox)
    assert (trajectory.answer, trajectory.ending) == ("unknown", Ending.ANSWERED)


def test_the_oracle_survives_an_empty_reply():
    question = FAMILIES["digit"].phrasings[0].format(colour="red")
    messages = [
        Message("user", (Image.new("RGB", (9, 9)), question)),
        Message("assistant", ("<code>x</code>",)),
        Message("user", ("<tool_response>\n(no output)\n</tool_response>",)),
    ]
    assert "<answer>unknown</answer>" in next_text(messages)


def test_tool_output_ends_at_the_last_closing_tag():
    reply = Message("user", ("<tool_response>\na\n</tool_response>\nb\n</tool_response>",))
    assert tool_output(reply) == "a\n</tool_response>\nb\n"


def test_the_teacher_is_right_in_the_exact_style(sandbox):
    teacher = TeacherPolicy(TeacherStyle(loose_share=0.0, wander_share=0.0))
    for index in range(7):
        assert play(teacher, NanoSuite("train")[index], sandbox).accuracy == 1.0


def test_the_loose_style_counts_wrong_on_hard_tasks(sandbox):
    teacher = TeacherPolicy(TeacherStyle(loose_share=1.0, wander_share=0.0))
    task = make_task("count", Difficulty.HARD, "train", 1)
    trajectory = play(teacher, task, sandbox)
    assert (trajectory.accuracy, trajectory.ending) == (0.0, Ending.ANSWERED)


def test_a_wandering_teacher_crops_the_middle_first(sandbox):
    teacher = TeacherPolicy(TeacherStyle(loose_share=0.0, wander_share=1.0))
    trajectory = play(teacher, make_task("count", Difficulty.EASY, "train", 1), sandbox)
    assert len(trajectory.tool_turns) == 2
    assert trajectory.tool_turns[0].execution.images[0].size == (112, 112)
    assert trajectory.accuracy == 1.0


def test_the_seed_determines_the_teachers_style():
    teacher = TeacherPolicy(TeacherStyle(loose_share=0.5, wander_share=0.5))
    task = make_task("bars", Difficulty.EASY, "train", 1)
    opening = [Message("user", (*task.images, task.question))]

    def texts():
        seeds = (Conversation(list(opening), seed) for seed in range(20))
        return [teacher.reply([one], sampling=Sampling())[0].text for one in seeds]

    assert texts() == texts()
    assert len(set(texts())) == 3  # exact, loose, and a wandering teacher's crop


def test_a_direct_demonstration_is_question_and_answer():
    task = make_task("area", Difficulty.EASY, "train", 5)
    question, answer = direct_demonstration(task).messages
    assert question.images == task.images
    assert f"<answer>{task.answer}</answer>" in answer.text


@pytest.mark.parametrize("family", ["digit", "bars", "area", "maze"])
def test_the_weak_policy_is_good_at_a_glance_and_poor_at_detail(sandbox, family):
    known = [
        make_task(family, difficulty, "train", s)
        for difficulty in Difficulty
        for s in range(1000, 1150)
    ]
    weak = WeakPolicy(known)

    def accuracy(difficulty):
        tasks = [make_task(family, difficulty, "train", seed) for seed in range(40)]
        return sum(play(weak, task, sandbox).accuracy for task in tasks) / 40

    assert accuracy(Difficulty.EASY) >= 0.55
    assert accuracy(Difficulty.HARD) <= FAMILIES[family].chance + 0.2


def test_the_weak_policy_does_not_know_other_questions():
    weak = WeakPolicy([make_task("area", Difficulty.EASY, "train", 1)])
    talk = Conversation([Message("user", (Image.new("RGB", (9, 9)), "Who is this?"))], 0)
    assert "<answer>unknown</answer>" in weak.reply([talk], sampling=Sampling())[0].text


@pytest.mark.parametrize(
    ("statement", "answer"),
    [
        ("there is a box with 2 yellow circles", "true"),
        ("there is a box with 3 yellow circles", "false"),
        ("there are exactly two circles", "true"),
        ("there are at least 3 circles", "false"),
        ("there is a tower with a black block at the top", "true"),
        ("there is a yellow block at the base of a tower", "true"),
    ],
)
def test_simple_statements_are_judged_from_the_inventory(statement, answer):
    rows = [
        [0, "yellow", "circle", 10, 20, 8, 8],
        [0, "yellow", "circle", 30, 20, 8, 8],
        [1, "black", "square", 150, 40, 9, 9],
        [1, "yellow", "square", 150, 60, 9, 9],
    ]
    question = f"Is the following statement about the image true or false? Statement: {statement}"
    assert judge(question, json.dumps(rows)) == answer


def test_an_invalid_inventory_does_not_break_the_judge():
    question = "Is the following statement about the image true or false? Statement: there is a box"
    assert judge(question, "Traceback: [1, 2") == "true"


def shared_tasks(name, kind, limit):
    rows = (SHARED / name / "data.jsonl").read_text(encoding="utf-8").splitlines()[:limit]
    for row in map(json.loads, rows):
        picture = Image.open(SHARED / name / row["images"][0]).convert("RGB")
        yield Task(row["id"], name, name, "test", row["question"], (picture,), row["answer"], kind)


@pytest.mark.slow
@needs_shared
def test_the_nuclei_program_beats_plain_thresholding_on_human_counts(sandbox):
    """Plain Otsu and components are within 10 % on 28 of 100 pictures."""
    close = 0
    for task in shared_tasks("nuclei_count", AnswerKind.INTEGER, 100):
        answer = play(OraclePolicy(), task, sandbox).answer
        close += abs(int(answer) - int(task.answer)) <= 0.1 * int(task.answer)
    assert close >= 45


@pytest.mark.slow
@needs_shared
def test_the_statement_rules_beat_always_true_on_human_statements(sandbox):
    """Always true is right on 53 % of the statements."""
    outcomes = Counter(
        play(OraclePolicy(), task, sandbox).accuracy
        for task in shared_tasks("nlvr_dev", AnswerKind.BOOLEAN, 239)
    )
    assert outcomes[1.0] / 239 >= 0.6


def test_a_custom_program_runs_and_its_last_word_is_the_answer(sandbox):
    from codedance.policies.scripted.oracle import register_program, unregister_program

    @register_program
    def grey(question):
        return "print(input_image.getpixel((0, 0))[0])" if question == "How grey?" else None

    picture = Image.new("RGB", (8, 8), (77, 77, 77))
    task = Task("own/1", "own", "own", "test", "How grey?", (picture,), answer="77")
    try:
        for policy in (OraclePolicy(), TeacherPolicy(TeacherStyle(loose_share=1.0))):
            assert play(policy, task, sandbox).accuracy == 1.0
    finally:
        unregister_program("grey")
    assert play(OraclePolicy(), task, sandbox).answer == "unknown"
