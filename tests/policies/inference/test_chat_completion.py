"""Chat completions in every observed form: text, a thought, or no text of the model."""

import json

import pytest
from codedance.policies.inference.chat_completion import (
    CompletionError,
    read_completion,
    text_of_content,
)

ANSWER = "<answer>5</answer>"
TEXT = {"type": "text", "text": ANSWER}
GUESS = "perhaps <answer>4</answer>"


def completion(content, reason="stop", **more):
    message = {"role": "assistant", "content": content} | more
    return {"choices": [{"message": message, "finish_reason": reason}]}


@pytest.mark.parametrize(
    "content",
    [
        ANSWER,
        [TEXT],
        [{"type": "text", "text": "<answer>5"}, {"type": "text", "text": "</answer>"}],
        [{"type": "output_text", "text": ANSWER, "annotations": []}],
        [ANSWER],
        [{"text": ANSWER}],
        [{"type": "thinking", "thinking": [{"type": "text", "text": GUESS}]}, TEXT],
        [{"type": "thinking", "thinking": GUESS, "signature": "x"}, TEXT],
        [{"type": "reasoning", "text": GUESS}, TEXT],
        [{"type": "reasoning", "summary": [{"type": "summary_text", "text": GUESS}]}, TEXT],
        [{"type": "redacted_thinking", "data": "…"}, TEXT],
        [{"type": "text", "text": GUESS, "thought": True}, TEXT],
    ],
)
def test_text_parts_are_joined_and_thoughts_are_omitted(content):
    assert read_completion(completion(content)).text == ANSWER
    assert text_of_content(content) == ANSWER


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "reasoning_details"])
def test_a_separate_thought_is_not_part_of_the_reply(name):
    assert read_completion(completion(ANSWER, **{name: GUESS})).text == ANSWER
    assert read_completion(completion(None, **{name: GUESS})).text == ""


@pytest.mark.parametrize("content", [None, "", [], [{"type": "thinking", "thinking": GUESS}]])
def test_an_empty_completion_is_an_empty_reply(content):
    assert read_completion(completion(content)).text == ""


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (completion(5), "text or a list of parts, got 5"),
        (completion({"type": "text", "text": ANSWER}), "text or a list of parts"),
        (completion(True), "text or a list of parts"),
        (completion([5]), "neither text nor thought: 5"),
        (completion([None]), "neither text nor thought"),
        (completion([{"type": "text", "text": None}]), "neither text nor thought"),
        (completion([{"type": "text", "text": {"value": ANSWER}}]), "neither text nor thought"),
        (completion([{"type": ["text"], "text": ANSWER}]), "neither text nor thought"),
        (completion([TEXT, {"type": "image_url", "image_url": {}}]), "neither text nor thought"),
        (completion([{"type": "refusal", "refusal": "I will not."}]), "refused: I will not."),
        (completion(None, refusal="I will not."), "refused: I will not."),
        (completion(None, "tool_calls", tool_calls=[{"id": "a"}]), "called a tool"),
        (completion(None, audio={"data": ""}), "audio or images"),
        (completion("", "content_filter"), "withheld the reply"),
        (completion("<answer>", "CONTENT_FILTER"), "withheld the reply"),
        (completion("<answer>", "abort"), "withheld the reply"),
        (completion(ANSWER, "safety"), "withheld the reply"),
        (completion("", refusal="I will not."), "refused: I will not."),
        (completion([], refusal="I will not."), "refused: I will not."),
        (completion("\n", "tool_calls", tool_calls=[{"id": "a"}]), "called a tool"),
        (completion("", "tool_calls"), "called a tool"),
        (
            completion([{"type": "thinking", "thinking": GUESS}], function_call={"name": "f"}),
            "tool",
        ),
        (completion("", images=[{"image_url": {}}]), "audio or images"),
        (completion(ANSWER) | {"error": {"message": "out of memory"}}, "out of memory"),
        ({"object": "error", "message": "no such model", "code": 404}, "no such model"),
        ({"choices": [{"message": {"role": "assistant"}}]}, "has no content"),
        ({"choices": [{"message": None}]}, "message is not an object"),
        ({"choices": [{"text": ANSWER}]}, "message is not an object"),
        ({"choices": [None]}, r"choices\[0\] is not an object"),
        ({"choices": []}, "no choices"),
        ({"choices": None}, "no choices"),
        ({"choices": {"0": {}}}, "no choices"),
        ({"choices": "stop"}, "no choices"),
        ({}, "no choices"),
        ([], "the answer is not an object"),
        (None, "the answer is not an object"),
        ("text", "the answer is not an object"),
        ({"error": "out of memory"}, "error: out of memory"),
        ({"choices": [{"error": {"message": "cut", "code": 502}}]}, "error: cut"),
    ],
)
def test_a_completion_without_text_is_a_server_failure_with_a_reason(data, words):
    with pytest.raises(CompletionError, match=words):
        read_completion(data)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"message": "busy", "code": 429}, 429),
        ({"message": "busy", "code": "503"}, 503),
        ({"message": "busy", "status": 502}, 502),
        ({"message": "busy", "code": "rate_limited"}, None),
        ({"message": "busy", "code": True}, None),
        ("busy", None),
    ],
)
def test_an_error_in_a_successful_response_has_its_status(error, status):
    with pytest.raises(CompletionError, match="busy") as caught:
        read_completion({"error": error})
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"completion_tokens": 7, "prompt_tokens": 9}, (7, 9)),
        ({"completion_tokens": 7.0}, (7, 0)),
        ({"completion_tokens": "7", "prompt_tokens": None}, (0, 0)),
        ({"completion_tokens": -1, "prompt_tokens": float("inf")}, (0, 0)),
        (None, (0, 0)),
        ([1], (0, 0)),
        ("7", (0, 0)),
    ],
)
def test_an_invalid_token_count_does_not_lose_the_reply(usage, counts):
    found = read_completion(completion(ANSWER) | {"usage": usage})
    assert (found.text, found.new_tokens, found.read_tokens) == (ANSWER, *counts)


@pytest.mark.parametrize(
    ("reason", "is_cut"),
    [
        *[("length", True), ("max_tokens", True), ("LENGTH", True), ("max_output_tokens", True)],
        *[("stop", False), (None, False), (["length"], False)],
    ],
)
def test_only_a_token_limit_marks_a_reply_as_cut(reason, is_cut):
    assert read_completion(completion(ANSWER, reason)).is_cut is is_cut


def test_a_lone_surrogate_in_a_reply_is_replaced_by_its_escape():
    data = json.loads(json.dumps(completion("<answer>5 \ud83d</answer>")))
    assert read_completion(data).text == "<answer>5 \\ud83d</answer>"
