"""Any text of a policy or its server is an action, a grade of 0 or 1, or a policy failure."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from codedance.envs.grading import check_gradable, grade
from codedance.envs.parsing import parse_action
from codedance.envs.types import AnswerKind, Message, Task
from codedance.policies.inference.endpoint import Endpoint
from codedance.policies.inference.openai_client import OpenAIPolicy
from codedance.policies.interface import Conversation, PolicyUnavailableError, Sampling
from hypothesis import given
from hypothesis import strategies as st

from .settings import examples

pytestmark = pytest.mark.slow

FRAGMENTS = (
    *("<think>", "</think>", "<code>", "</code>", "<answer>", "</answer>", "<tool_response>"),
    *(
        "```",
        "```python\n",
        "````py\n",
        "~~~\n",
        "\n```\n",
        "\n",
        "\r\n",
        "\t",
        "    ",
        "- ",
        "1. ",
    ),
    *("print(1)", "5", "-4", "1,234.5", "2 cm^2", "yes", "No,", "(B)", "A. red", "not red", "½"),
    *(
        "<image>",
        "<|im_end|>",
        "\u2212",
        "\u00a0",
        "\ud83d",
        "\x00",
        "é",
        "e\u0301",
        "𝟙",
        "٣",
        "％",
    ),
    *('{"name": "crop", "arguments": {"box": [', "1e999", "nan", "**", "*", "\\boxed{", "$", "`"),
)
texts = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=6)), max_size=14).map(
    "".join
)
surrogates = st.text(st.characters(), max_size=12)
replies = st.one_of(texts, surrogates)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), replies),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(replies, st.sampled_from(["code", "box", "text"]))
@examples(3000)
def test_any_reply_is_an_action_of_a_known_kind(text, interface):
    action = parse_action(text, interface=interface)
    assert action.kind in ("code", "answer", "malformed")
    assert action.kind != "malformed" or action.content  # the reason


@given(
    st.sampled_from(list(AnswerKind)), replies, st.lists(texts, max_size=5, unique=True), replies
)
@examples(3000)
def test_any_answer_to_any_gradable_task_is_right_or_wrong(kind, truth, choices, answer):
    task = Task("t", "t", "t", "test", "?", (), truth, kind, choices=tuple(choices))
    try:
        check_gradable(task)
    except ValueError:
        return
    assert grade(task, answer) in (0.0, 1.0)
    assert grade(task, None) == 0.0


class Answering(BaseHTTPRequestHandler):
    """Answers every request with the body set by the test."""

    body = b""

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def policy():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/v1"
    yield OpenAIPolicy("m", base_url=url, api_key="k", endpoint=Endpoint(max_retries=0))
    server.shutdown()
    server.server_close()


parts = st.one_of(
    json_values,
    st.fixed_dictionaries(
        {"type": st.one_of(replies, st.sampled_from(["text", "output_text", "thinking"]))},
        optional={"text": json_values, "thinking": json_values, "image_url": json_values},
    ),
)
messages = st.fixed_dictionaries(
    {},
    optional={
        "content": st.one_of(json_values, st.lists(parts, max_size=4)),
        "reasoning_content": json_values,
        "tool_calls": json_values,
        "refusal": json_values,
    },
)
choices = st.fixed_dictionaries({}, optional={"message": messages, "finish_reason": json_values})
bodies = st.one_of(
    json_values,
    st.fixed_dictionaries(
        {}, optional={"choices": st.lists(choices, max_size=2), "usage": json_values}
    ),
    st.fixed_dictionaries({"choices": st.tuples(choices).map(list)}),
)


@given(body=bodies)
@examples(2000)
def test_any_answer_of_a_server_is_a_text_or_infrastructure(policy, body):
    Answering.body = json.dumps(body).encode()
    asked = Conversation([Message("user", ("?",))], seed=0)
    try:
        (reply,) = policy.reply([asked], sampling=Sampling())
    except PolicyUnavailableError as error:
        assert len(str(error)) < 2000
        return
    reply.text.encode()
    parse_action(reply.text)
