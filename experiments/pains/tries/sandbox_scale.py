"""11. Tool servers and containers do not scale.

Reported: verl-tool #144, #72; OpenEnv #194; verifiers #400; OpenShell #1447 (5–15 s to start).
Try: 64 sandboxes at once, from nothing to the first line of output of each, then closed. It passes
if every one answers and a start takes less than 0.2 s on average.
"""

import asyncio
import time

from ..verdict import judge, untried

COUNT = 64
MOST_SECONDS = 0.2


def result(what, answers, seconds):
    """Return the verdict on the answers and the time of all."""
    right = sum(one.strip() == "1" for one in answers)
    return judge(
        right == COUNT and seconds / COUNT < MOST_SECONDS,
        f"{what}: {right} of {COUNT} answered in {seconds:.1f} s, {1e3 * seconds / COUNT:.0f} ms each",
    )


def ours():
    from codedance.sandbox import open_sandbox

    begun = time.perf_counter()
    with open_sandbox("local") as sandbox:
        sessions = [sandbox.session(seed=number) for number in range(COUNT)]
        answers = [one.run("print(1)").stdout for one in sessions]
        for one in sessions:
            one.close()
        tier = sandbox.tier.split(":")[0]
    return result(f"isolated sessions ({tier})", answers, time.perf_counter() - begun)


def trl():
    return untried("no sandbox: tools are functions in the trainer's process")


def verl():
    return untried("no sandbox of its own: its client needs a SandboxFusion service")


def verifiers():
    import sys

    from verifiers.v1.runtimes import SubprocessConfig, make_runtime

    async def one(number):
        runtime = make_runtime(SubprocessConfig(), name=f"pain-{time.time_ns()}-{number}")
        await runtime.start()
        try:
            return (await runtime.run([sys.executable, "-c", "print(1)"], {})).stdout
        finally:
            await runtime.stop()

    async def all_of_them():
        return await asyncio.gather(*(one(number) for number in range(COUNT)))

    begun = time.perf_counter()
    answers = asyncio.run(all_of_them())
    found = result("SubprocessRuntime, no isolation", answers, time.perf_counter() - begun)
    return judge(
        found.result == "passes", f"{found.evidence}; its containers need Docker or a service"
    )
