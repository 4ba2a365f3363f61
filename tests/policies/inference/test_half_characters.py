r"""Half a character (a lone surrogate, ``\ud83d`` in JSON) of any source ends no rollout."""

import json

import pytest
from codedance.envs import Item, load_suite
from codedance.envs.episode import Episode
from codedance.envs.suites import SuiteError
from codedance.envs.suites.generated import GeneratedSuite
from codedance.envs.text.unicode_text import escape_surrogates, lone_surrogate
from codedance.envs.types import Message, Task
from codedance.pipelines.cli.output import say
from codedance.pipelines.store.rows import clean
from codedance.policies import rollout
from codedance.policies.inference.openai_client import openai_message
from codedance.policies.interface import Reply, Sampling
from codedance.sandbox.types import Sandbox
from PIL import Image

from ..players import task
from ..tiny import noise

HALF = "\ud83d"
ROW = {"image": "a.png", "question": "How many?", "answer": "5"}


def test_whole_characters_are_unchanged():
    for text in ("", "plain", "é", "\U0001f600", "\0", "\ufffd"):
        assert escape_surrogates(text) == text
        assert lone_surrogate(text) is None


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"question": f"How {HALF}?"}, "question"),
        ({"answer": f"5 {HALF}"}, "answer"),
        ({"options": ["4", HALF]}, "options"),
        ({"options": {"A": "4", HALF: "5"}}, "options"),
        ({"id": HALF}, "id"),
        ({"family": f"a{HALF}"}, "family"),
        ({"note": {"deep": [[f"{HALF}"]]}}, "note"),
        ({HALF: "x"}, "ud83d"),
    ],
)
def test_a_row_with_half_a_character_is_rejected_with_its_line(tmp_path, change, key):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    path = tmp_path / "mine.jsonl"
    path.write_text(f"{json.dumps(ROW)}\n{json.dumps(ROW | change)}\n")
    with pytest.raises(SuiteError, match=rf"mine\.jsonl, line 2: .*{key}.*ud83d") as caught:
        load_suite(path)
    str(caught.value).encode()


def test_a_family_that_returns_half_a_character_is_played_with_its_escape():
    def draw(rng, difficulty):
        return Item(f"How {HALF}?", noise(0), f"5{HALF}", choices=(f"5{HALF}", "4"))

    drawn = GeneratedSuite("s", {"f": draw}, split="train")[0]
    assert (drawn.question, drawn.answer) == ("How \\ud83d?", "5\\ud83d")
    assert drawn.choices == ("5\\ud83d", "4")


class Says:
    """Replies with a fixed text, after encoding the conversation as a tokenizer would."""

    id = "says"

    def __init__(self, text):
        self.text = text

    def reply(self, conversations, *, sampling):
        for one in conversations:
            "".join(message.text for message in one.messages).encode()
        return [Reply(self.text) for _ in conversations]


@pytest.mark.parametrize(
    "text",
    [
        f"<answer>5{HALF}</answer>",
        f"<think>{HALF}</think><answer>5</answer>",
        f"```python\nprint('{HALF}')\n```",
        f"```python\nprint(chr(0xD83D)); x = '{HALF}'; print(len(x))\n```",
        HALF,
    ],
)
def test_a_reply_with_half_a_character_loses_no_other_episode(sandbox: Sandbox, text: str):
    odd = Task("t/1", "t", "t", "train", f"How {HALF}?", (noise(1),), f"{HALF}")
    played = rollout(Says(text), [task(), odd], sandbox=sandbox, max_turns=2, sampling=Sampling())
    assert len(played) == 2
    for one in played:
        assert one.is_valid
        whole = "".join(message.text for message in one.conversation())
        assert clean(whole) == whole
        json.dumps(one.answer, ensure_ascii=False).encode()


def test_a_cut_text_is_kept_with_the_escape(sandbox: Sandbox):
    with Episode(task(), sandbox, system_prompt=f"Be brief {HALF}") as episode:
        episode.cut(f"<think>{HALF}")
        assert episode.turns[-1].text == "<think>\\ud83d"
        assert episode.opening[0].text == "Be brief \\ud83d"


def test_a_message_to_a_server_can_be_sent():
    for parts in ((HALF,), (noise(0), HALF)):
        body = openai_message(Message("user", parts))
        json.dumps(body, ensure_ascii=False).encode()


def test_a_tokenizer_reads_the_escape(tiny_model):
    assert tiny_model.chat.encode_text(HALF) == tiny_model.chat.encode_text("\\ud83d")


def test_a_name_of_another_encoding_can_be_printed(capsys):
    say("picture \udcff.png")
    assert capsys.readouterr().out == "picture \\udcff.png\n"
