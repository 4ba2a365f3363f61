"""``--notes FOLDER``: it is recorded, decides a run, and is refused where it would be ignored."""

import pytest
from codedance.pipelines.runs.session import open_session
from codedance.pipelines.serving.model_server import ModelServer
from codedance.policies.interface import Reply
from PIL import Image


class Sees:
    """Answers at once; remembers the messages and sizes of images that it was asked with."""

    id = "sees"

    def __init__(self):
        self.seen = []

    def reply(self, conversations, *, sampling):
        for one in conversations:
            roles = [message.role for message in one.messages]
            self.seen.append((roles, [image.size for image in one.messages[-1].images]))
        return [Reply("<answer>5</answer>") for _ in conversations]


@pytest.fixture
def sees():
    return Sees()


@pytest.fixture
def server(sees):
    with ModelServer(sees) as server:
        yield server


@pytest.mark.slow
def test_an_evaluation_records_the_notes_and_is_another_one_without_them(
    codedance, home, tiny, server, sees
):
    words = ("--policy", "openai:sees", "--base-url", server.url, "--limit", "1")
    for notes in ((), ("--notes", "nano"), ("--notes", "nano")):
        assert codedance("evaluate", "--preset", "smoke", *words, *notes)[0] == 0
    with open_session(home, track=False) as session:
        runs = session.store.lineage.find(stage="evaluate")
    assert [run.parameters.get("notes") for run in sorted(runs, key=lambda run: run.id)] == [
        None,
        "nano",
    ]
    without, knowing = sees.seen[0], sees.seen[-1]
    assert without == (["system", "user"], [(224, 224)])
    assert knowing == (["user"], [(112, 112)])


def test_a_question_is_asked_with_the_notes(codedance, home, server, sees, tmp_path):
    Image.new("RGB", (300, 200), "red").save(tmp_path / "a.png")
    asked = ("ask", str(tmp_path / "a.png"), "How many red discs are there?")
    to = ("--policy", "openai:sees", "--base-url", server.url)
    code, out, _ = codedance(*asked, *to, "--notes", "nano")
    assert code == 0
    assert "nano was trained on: digit" in out
    assert sees.seen == [(["user"], [(112, 84)])]


@pytest.mark.slow
def test_the_teacher_of_a_curation_is_played_with_the_notes(codedance, home, tiny, server, sees):
    teacher = ("--set", "curate.strong=openai:sees", "--set", f"server.base_url={server.url}")
    few = ("--set", "curate.candidates=2", "--set", "curate.known=2")
    codedance("curate", "--no-prefect", "--preset", "smoke", *teacher, *few, "--notes", "nano")
    assert {tuple(roles) for roles, _ in sees.seen} == {("user",)}
    assert {size for _, sizes in sees.seen for size in sizes} == {(112, 112)}


@pytest.mark.parametrize(
    "words",
    [
        ("evaluate", "--policy", "nano", "--limit", "1"),
        ("ask", "a.png", "what?"),
        ("play",),
        ("scale", "--limit", "1"),
        ("sft",),
        ("grpo",),
        ("curate", "--preset", "smoke"),
    ],
)
def test_notes_without_a_model_behind_a_server_are_refused(codedance, home, words):
    code, _, error = codedance(*words, "--notes", "nano")
    assert code == 2
    assert "notes" in error


def test_notes_that_cannot_be_read_are_an_error_before_anything_is_sent(codedance, home, server):
    words = ("--policy", "openai:sees", "--base-url", server.url)
    code, _, error = codedance("play", *words, "--notes", "nowhere")
    assert code == 2
    assert "no model folder at nowhere to read the notes of" in error
