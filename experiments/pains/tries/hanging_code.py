"""6. Code hangs the run; time limits by signals fail in threads.

Reported: verl #288, code-r1 #7, verl PR #5635 (all MATH scores 0), PR #5839.
Try: a tool call that never ends; does the episode go on within 10 s? Then the package's scorer of
mathematics, on a right answer, in a thread other than the first.
"""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from ..verdict import judge

PATIENCE = 10.0


def in_thread(function):
    """Return what a function returns in another thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def within(function):
    """Return the seconds that a function took in a thread, None if it still runs after 10."""
    begun = time.monotonic()
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return None if thread.is_alive() else time.monotonic() - begun


def ours():
    from codedance.envs.grading import grade
    from codedance.envs.types import AnswerKind, Task
    from codedance.sandbox import Limits, open_sandbox

    with (
        open_sandbox("local", limits=Limits(wall_seconds=2.0)) as sandbox,
        sandbox.session() as hung,
        sandbox.session() as other,
    ):
        found = []
        seconds = within(lambda: found.append(hung.run("while True: pass")))
        after = other.run("print(1)").stdout.strip()
    base = {"id": "t", "suite": "t", "family": "t", "split": "test", "images": (), "question": "?"}
    number = Task(**base, answer="5", answer_kind=AnswerKind.INTEGER)
    score = in_thread(lambda: grade(number, "5"))
    outcome = found[0].outcome.value if found else "none"
    return judge(
        seconds is not None and score == 1.0 and after == "1",
        f"`while True` ended after {seconds:.1f} s (limit 2 s) as {outcome}, the session beside it "
        f"goes on; score in a thread {score}",
    )


def trl():
    from trl.rewards import accuracy_reward

    from ..benches import in_trl

    def look(code: str) -> str:
        """Look at the image.

        Args:
            code: Program.
        """
        while True:
            time.sleep(0.01)

    rows = [{"prompt": [{"role": "user", "content": f"How many, {n}?"}]} for n in range(2)]
    trainer = in_trl.make_trainer(
        rewards=[lambda completions, **_: [1.0, 0.0]],
        tools=[look],
        rows=rows,
        writes=in_trl.calls(1),
    )
    seconds = within(lambda: in_trl.batch_of(trainer))
    reply = [[{"role": "assistant", "content": "\\boxed{5}"}]]
    score = in_thread(lambda: accuracy_reward(reply, ["5"])[0])
    said = "GRPOTrainer has no time limit for a tool: still running after 10 s"
    said = said if seconds is None else f"ended after {seconds:.1f} s"
    return judge(
        seconds is not None and score == 1.0, f"{said}; accuracy_reward in a thread {score}"
    )


def verl():
    from verl.utils.reward_score import math_verify

    from ..benches import in_verl

    async def look(code):
        while True:
            await asyncio.sleep(0.01)

    seconds = within(lambda: in_verl.play([in_verl.CALL, "4"], look))
    score = in_thread(lambda: math_verify.compute_score("\\boxed{5}", "5"))
    said = "ToolAgentLoop._call_tool has no time limit: still waiting after 10 s"
    said = said if seconds is None else f"ended after {seconds:.1f} s"
    return judge(
        seconds is not None and score == 1.0,
        f"{said}; math_verify.compute_score in a thread {score} (a pool of processes)",
    )


def verifiers():
    from verifiers.v1.utils.score import verify_boxed_math_answer

    from ..benches import in_verifiers

    async def look(turn):
        await asyncio.sleep(3600.0)

    folder, ends = in_verifiers.scratch(), []
    with in_verifiers.engine([in_verifiers.CALL, "4"], folder) as url:
        context = in_verifiers.client_of(folder, url)
        environment = in_verifiers.make_environment([None], look, seconds=2.0)
        seconds = within(lambda: ends.extend(in_verifiers.play(environment, context)))
    score = in_thread(lambda: verify_boxed_math_answer("\\boxed{5}", "5"))
    trace = ends[0].traces[0] if ends else None
    said = (
        "still waiting after 10 s" if trace is None else f"ended after {seconds:.1f} s (limit 2 s)"
    )
    return judge(
        trace is not None and score == 1.0,
        f"a rollout limit: {said}, {trace and trace.stop_condition}; verify_boxed_math_answer in a "
        f"thread {score}, in the first thread {verify_boxed_math_answer(chr(92) + 'boxed{5}', '5')}",
    )
