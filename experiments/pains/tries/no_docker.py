"""12. No Docker on clusters.

Reported: SkyRL-OpenHands #1, harbor PR #2950, NeMo Gym #1688.
Try: where there is no Docker daemon, model-written code reads a file that only this user may read,
and an address outside. It passes if the code runs and gets neither.
"""

import asyncio
import shutil
import sys
import tempfile
from pathlib import Path

from ..verdict import judge, untried

CODE = """
try:
    print(open({path!r}).read())
except OSError as error:
    print("file:", type(error).__name__)
import socket
try:
    socket.create_connection(("127.0.0.1", {port}), 2.0)
    print("connected")
except OSError as error:
    print("network:", type(error).__name__)
"""


def secret():
    """Return a file with a secret, and a program that looks for it and for a server of ours."""
    import socket

    path = Path(tempfile.mkdtemp()) / "answers"
    path.touch(0o600)
    path.write_text("the answer is 42", encoding="utf-8")
    server = socket.create_server(("127.0.0.1", 0))
    return server, CODE.format(path=str(path), port=server.getsockname()[1])


def result(what, printed):
    """Return the verdict on what the code printed."""
    got = [
        name for name, word in (("the file", "42"), ("the network", "connected")) if word in printed
    ]
    ran = bool(printed.strip())
    return judge(
        ran and not got,
        f"{what}: code {'runs' if ran else 'does not run'}, gets {got or 'nothing'}",
    )


def ours():
    from codedance.sandbox import open_sandbox

    server, program = secret()
    with server, open_sandbox("local") as sandbox, sandbox.session() as session:
        execution = session.run(program)
    return result(
        f"local sandbox, {sandbox.tier.split(':')[0]}", execution.stdout or str(execution.error)
    )


def trl():
    return untried("no sandbox: a tool that runs code is the user's, in the trainer's process")


def verl():
    from verl.utils.reward_score import prime_code

    server, program = secret()
    with server:
        tests = {"inputs": [""], "outputs": ["the answer is 42\nconnected\n"]}
        is_right = bool(prime_code.compute_score(f"```python\n{program}\n```", tests)[0])
    printed = "42 connected" if is_right else "other"
    return result("prime_code, its scorer of programs, without SandboxFusion", printed)


def verifiers():
    from verifiers.v1.runtimes import SubprocessConfig, make_runtime

    async def run(program):
        runtime = make_runtime(SubprocessConfig(), name=f"pain-{id(program)}")
        await runtime.start()
        try:
            return (await runtime.run([sys.executable, "-c", program], {})).stdout
        finally:
            await runtime.stop()

    server, program = secret()
    with server:
        printed = asyncio.run(run(program))
    found = result("SubprocessRuntime", printed)
    if shutil.which("apptainer") is None:
        return judge(
            found.result == "passes",
            f"{found.evidence}; it says so itself; its Apptainer runtime, without a daemon, would "
            "isolate, and is not installed here",
        )
    return untried("an Apptainer is installed: its runtime has to be tried")
