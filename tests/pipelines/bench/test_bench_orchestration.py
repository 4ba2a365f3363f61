"""The orchestration benchmark: the engine's clock by hand, its routes, and a small rollout."""

import asyncio
import contextlib
import json
import sys
import threading
from pathlib import Path

import httpx
import pytest
from codedance.pipelines.runs.machine import Machine

from benchmarks.measuring.orchestration import contest, play_ours
from benchmarks.measuring.orchestration.contest import CONTESTANTS, Contestant, Report, Trial
from benchmarks.measuring.orchestration.fake_engine import FakeEngine, serving
from benchmarks.measuring.orchestration.latency import (
    EngineClock,
    Latency,
    Turn,
    ideal_seconds,
)
from benchmarks.measuring.orchestration.playing import Options
from benchmarks.measuring.orchestration.recording import (
    CALL_TOKENS,
    TURNS,
    Style,
    episode_of,
    question,
    recorded,
)
from benchmarks.measuring.orchestration.table import lines, table

# 1,000 prompt tokens/s; a step takes 10 ms and 1 ms for each sequence.
SLOW = Latency(1000.0, 0.010, 0.001)
FAST = Latency(1e9, 1e-6, 0.0)
MACHINE = Machine("a processor", 2, 24.0, "a system", "libraries", "a user")


def test_time_of_one_request_is_that_of_its_prompt_and_its_steps():
    assert ideal_seconds([[Turn(100, 10)]], SLOW, tool_seconds=5.0) == pytest.approx(0.1 + 0.11)


def test_sequences_share_steps_and_prompts_wait_for_each_other():
    # The first decodes alone for 100 ms (9.09 steps); then both, at 12 ms a step.
    first = 0.1 / 0.011
    clock = EngineClock(SLOW)
    clock.submit("a", Turn(100, 20), 0.0)
    clock.submit("b", Turn(100, 20), 0.0)
    assert clock.next_event == pytest.approx(0.1)
    assert clock.advance(0.2) == []
    end = 0.2 + (20 - first) * 0.012
    assert clock.next_event == pytest.approx(end)
    assert clock.advance(end + 1e-9) == ["a"]
    # The rest of the second alone: it has had as many steps since as the first.
    assert clock.next_event == pytest.approx(end + first * 0.011)
    assert clock.advance(10.0) == ["b"]
    assert clock.next_event is None


def test_a_tool_lies_between_turns_and_is_not_shared():
    turns = [Turn(0, 10), Turn(0, 10)]
    alone = 0.11 + 0.5 + 0.11
    assert ideal_seconds([turns], SLOW, tool_seconds=0.5) == pytest.approx(alone)
    # Two at once: 12 ms a step, the tools at the same time.
    assert ideal_seconds([turns, turns], SLOW, tool_seconds=0.5) == pytest.approx(0.74)


def test_recordings_depend_on_the_episode_alone():
    assert recorded(7) == recorded(7) != recorded(8)
    assert len(recorded(7)) == TURNS
    assert episode_of(f"<|im_start|>user\n{question(7)}") == 7
    with pytest.raises(ValueError, match="no number of an episode"):
        episode_of("How many?")


@contextlib.asynccontextmanager
async def client_of(style):
    engine = FakeEngine(Style(style, 0.0), FAST, image_tokens=3)
    async with (
        serving(engine) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        yield client, engine._tokenizer


def test_every_route_writes_the_recorded_turn():
    async def run():
        async with client_of("call") as (client, tokenizer):
            prompt = f"<|vision_start|><|image_pad|><|vision_end|>{question(3)}<|im_end|>"
            prompt += "<|im_start|>assistant\n"
            ids = tokenizer.encode(prompt, add_special_tokens=False)
            image = [{"type": "image_url", "url": ""}]
            exact = await client.post(
                "/inference/v1/generate", json={"token_ids": ids, "content_parts": image}
            )
            found = exact.json()
            (image_id,) = tokenizer.encode("<|image_pad|>", add_special_tokens=False)
            assert found["prompt_token_ids"].count(image_id) == 3
            assert found["mm_placeholders"] == {"image": [{"offset": 1, "length": 3}]}
            (choice,) = found["choices"]
            assert len(choice["token_ids"]) == recorded(3)[0].tokens
            assert len(choice["logprobs"]["content"]) == len(choice["token_ids"])
            assert '"turn": "1"' in tokenizer.decode(choice["token_ids"])

            plain = await client.post("/v1/completions", json={"prompt": [ids, ids]})
            assert [one["token_ids"] for one in plain.json()["choices"]] == [
                choice["token_ids"]
            ] * 2

            said = [{"role": "user", "content": [{"type": "text", "text": question(3)}]}]
            said += [{"role": "assistant", "content": "x"}, {"role": "user", "content": "y"}]
            chat = await client.post("/v1/chat/completions", json={"messages": said})
            assert '"turn": "2"' in chat.json()["choices"][0]["message"]["content"]
            last = [*said, *said[1:], *said[1:]]
            chat = await client.post("/v1/chat/completions", json={"messages": last})
            assert "<answer>4</answer>" in chat.json()["choices"][0]["message"]["content"]
            assert (await client.get("/v1/models")).json()["data"][0]["id"] == "fake"
            assert (await client.post("/absent", json={})).status_code == 400
            assert (await client.post("/v1/completions", json={"prompt": [1]})).status_code == 400

    asyncio.run(run())


def test_tags_can_be_tokens_of_their_own():
    async def run():
        async with client_of("call-tokens") as (client, tokenizer):
            body = {"prompt": tokenizer.encode(f"{question(1)}<|im_start|>assistant")}
            (choice,) = (await client.post("/v1/completions", json=body)).json()["choices"]
            own = tokenizer.convert_tokens_to_ids(list(CALL_TOKENS[:2]))
            assert set(own) <= set(choice["token_ids"])

    asyncio.run(run())


@contextlib.contextmanager
def engine_in_thread(style):
    """Run an engine whose answers come at once; yield its address."""
    ready, addresses, loop = threading.Event(), [], asyncio.new_event_loop()

    async def run():
        async with serving(FakeEngine(Style(style, 0.0), FAST)) as port:
            addresses.append(f"http://127.0.0.1:{port}")
            ready.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    task = loop.create_task(run())
    thread = threading.Thread(target=loop.run_until_complete, args=(task,))
    thread.start()
    ready.wait()
    try:
        yield addresses[0]
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
        loop.close()


@pytest.mark.parametrize("client", ["vllm", pytest.param("openai", marks=pytest.mark.slow)])
def test_our_rollout_plays_the_recording(client, tmp_path):
    with engine_in_thread("code") as url:
        options = Options(url, 2, client, "real", evidence=False)
        play, sandbox = play_ours.player(options, tmp_path)
        with sandbox:
            play(range(2))  # raises if turns, images or endings are others


def test_a_contestant_that_fails_is_named(monkeypatch):
    monkeypatch.setattr(contest, "engine", lambda _: contextlib.nullcontext("http://127.0.0.1:1"))
    one = Contestant("nobody", "trl", ("absent",))
    with pytest.raises(RuntimeError, match=r"nobody failed:\n.*absent"):
        contest.play(one, Path(sys.executable), 1)


def test_table_shows_medians_above_the_ideal():
    trials = {"ours": [Trial(11.0, 2.0, 0.5), Trial(10.5, 1.0, 0.5), Trial(30.0, 3.0, 0.9)]}
    report = Report(MACHINE, 0.1, 16, 10.0, {"ours": "1"}, trials)
    assert report.above("ours") == pytest.approx(0.1)
    (row,) = table(report).rows
    assert row == ("ours", "11.0", "+1.0", "+10.0 %", "2.0")
    shown = "\n".join(lines(report))
    assert "ours: 11.0, 10.5, 30.0 s" in shown
    assert "at most 0.90" in shown
    even = Report(MACHINE, 0.1, 16, 10.0, {}, {"ours": trials["ours"][:2]})
    assert even.median("ours").seconds == pytest.approx(10.75)


def test_names_of_contestants_are_unique():
    assert len({one.name for one in CONTESTANTS}) == len(CONTESTANTS)
    assert json.dumps([one.program for one in CONTESTANTS])
