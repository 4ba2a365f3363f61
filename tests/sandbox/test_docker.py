"""The container of the zygote: hardened, removed with its owner, with clear errors."""

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from codedance.sandbox import Outcome, SandboxError, open_sandbox
from codedance.sandbox.docker.engine import (
    OWNER_LABEL,
    WORKER_LABEL,
    Engine,
    seccomp_profile,
    worker_digest,
)
from codedance.sandbox.host.owner import is_stale
from codedance.sandbox.types import SandboxUnavailableError
from codedance.sandbox.worker import syscalls

from .conftest import open_container
from .test_lifecycle import await_death, descendants

LIVE = """
import sys
from codedance.sandbox import open_sandbox
sandbox = open_sandbox('docker', image=sys.argv[1], libraries=())
session = sandbox.session()
session.run('1')
print(sandbox.process_id, flush=True)
input()
"""


@pytest.fixture
def own(image):
    """A separate sandbox without libraries, which starts fast."""
    with open_container(image, libraries=()) as sandbox:
        yield sandbox


@pytest.fixture
def client(engine):
    return engine._client


def containers_of(client, process_id):
    """Return the containers of a process, running or not."""
    found = client.containers.list(all=True, filters={"label": OWNER_LABEL}, ignore_removed=True)
    return [c for c in found if c.labels[OWNER_LABEL].split()[-2] == str(process_id)]


def kill_container(client, process_id):
    """Kill a container as the kernel would; without root, through the engine."""
    processes = descendants(process_id)
    try:
        os.kill(process_id, signal.SIGKILL)
    except PermissionError:
        (one,) = [c for c in client.containers.list() if c.attrs["State"]["Pid"] == process_id]
        one.kill("SIGKILL")
    assert await_death(processes) == []


def await_none(client, process_id, seconds=60.0):
    deadline = time.monotonic() + seconds
    while containers_of(client, process_id) and time.monotonic() < deadline:
        time.sleep(0.1)
    return containers_of(client, process_id)


def test_full_isolation_works_inside_the_container(docker):
    assert docker.tier.startswith("full: in a Docker container (no network, read-only, no cap")
    assert "user, pid, mount, net, ipc, uts and cgroup namespaces" in docker.tier


def test_every_restriction_of_the_container_is_set(own, client):
    (container,) = [
        c for c in containers_of(client, os.getpid()) if c.attrs["State"]["Pid"] == own.process_id
    ]
    host, config = container.attrs["HostConfig"], container.attrs["Config"]
    assert host["NetworkMode"] == "none"
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert not host["Privileged"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert any(option.startswith("seccomp={") for option in host["SecurityOpt"])
    assert 0 < host["PidsLimit"] <= 4096
    assert 0 < host["Memory"] == host["MemorySwap"]
    assert host["IpcMode"] == "none"
    assert host["Tmpfs"] == {"/tmp": "rw,nosuid,nodev,noexec,size=256m,mode=1777"}
    assert host["LogConfig"]["Type"] == "none"
    assert host["Ulimits"] == [{"Name": "core", "Hard": 0, "Soft": 0}]
    assert host["AutoRemove"]
    assert config["User"] == "65532:65532"
    assert [m["Destination"] for m in container.attrs["Mounts"] if m["RW"]] == []


def test_the_kernel_reports_the_restrictions(docker_confined):
    """Without a user namespace, in which the first process would have its own rights."""
    lines = Path(f"/proc/{docker_confined.process_id}/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines)
    assert status["Uid"].split() == ["65532"] * 4
    assert (int(status["CapEff"], 16), int(status["CapBnd"], 16)) == (0, 0)
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_the_profile_allows_the_system_calls_of_the_inner_filters():
    """Docker's own lacks the namespaces; ours lacks calls that sessions and start do not need."""
    profile = seccomp_profile()
    for name in {**syscalls.FREE, **syscalls.CHECKED, **syscalls.SETUP}:
        assert f'"{name}"' in profile
    for name in ("ptrace", "bpf", "keyctl", "io_uring_setup", "perf_event_open", "userfaultfd"):
        assert f'"{name}"' not in profile


def test_the_container_ends_with_the_sandbox(image, client):
    with open_container(image, libraries=()) as sandbox:
        process_id = sandbox.process_id
        assert any(
            c.attrs["State"]["Pid"] == process_id for c in containers_of(client, os.getpid())
        )
    assert all(c.attrs["State"]["Pid"] != process_id for c in containers_of(client, os.getpid()))
    assert not os.path.exists(f"/proc/{process_id}")


def test_the_container_ends_with_a_killed_trainer(image, client):
    command = [sys.executable, "-c", LIVE, image]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as trainer:
        assert trainer.stdout is not None
        assert int(trainer.stdout.readline()) > 0
        assert len(containers_of(client, trainer.pid)) == 1
        trainer.kill()
    assert await_none(client, trainer.pid) == []


def test_a_container_left_by_a_dead_trainer_is_removed_at_the_next_start(image, client):
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    mark = f"{boot} {os.readlink('/proc/self/ns/pid')} 4194304 1"
    left = client.containers.create(image, labels={OWNER_LABEL: mark})
    mine = client.containers.create(image, labels={OWNER_LABEL: ""})
    try:
        with open_container(image, libraries=()):
            known = [c.id for c in client.containers.list(all=True, ignore_removed=True)]
        assert left.id not in known
        assert mine.id in known
    finally:
        mine.remove()


def test_a_label_is_stale_only_if_its_process_is_certainly_dead():
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    here = os.readlink("/proc/self/ns/pid")
    started = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    assert not is_stale(f"{boot} {here} {os.getpid()} {started}")
    assert is_stale(f"{boot} {here} {os.getpid()} {int(started) + 1}")
    assert is_stale(f"another-boot {here} {os.getpid()} {started}")
    assert not is_stale(f"{boot} pid:[1] {os.getpid()} {started}")
    assert not is_stale("")


def test_a_killed_container_is_replaced_and_its_sessions_replayed(own, client):
    with own.session() as session:
        session.run("x = [1]")
        first = own.process_id
        kill_container(client, first)
        assert session.run("x").stdout == "[1]\n"
        assert own.process_id != first


def test_a_session_is_killed_at_its_time_limit(own):
    with own.session() as session:
        code = (
            "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile 1: pass"
        )
        execution = session.run(code)
        assert execution.outcome is Outcome.TIMEOUT
        assert execution.cpu_seconds < 8
        assert session.run("print(1)").stdout == "1\n"


def test_the_zygote_sends_signals_if_the_host_may_not(own):
    """A host process of another user than the container's delegates to the zygote inside."""
    with own.session() as session:
        session.run("1")
        process = session._process
        process._zygote.signal_session(process._process_fd, signal.SIGKILL)
        assert select.select([process._process_fd], [], [], 10)[0]
        assert session.run("1").outcome is Outcome.KILLED


def test_the_error_for_a_missing_image_has_the_command_that_builds_it(engine):
    with pytest.raises(
        SandboxUnavailableError, match=r"no Docker image 'no-such'; .*codedance sandbox build"
    ):
        open_sandbox("docker", image="no-such")


def test_an_image_of_another_version_is_rejected(image, client):
    client.api.import_image_from_data(
        b"\0" * 1024, repository="codedance-old", changes=[f"LABEL {WORKER_LABEL}=0123"]
    )
    try:
        with pytest.raises(
            SandboxUnavailableError, match=f"another version.*0123.*{worker_digest()}"
        ):
            open_sandbox("docker", image="codedance-old")
    finally:
        client.images.remove("codedance-old")


def test_the_error_for_a_missing_engine_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    with pytest.raises(
        SandboxUnavailableError, match=r"no Docker engine answers at unix://.*start it"
    ):
        open_sandbox("docker")


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "http://127.0.0.1:9", "nonsense"])
def test_the_error_for_an_address_without_an_engine_says_what_to_do(monkeypatch, address):
    monkeypatch.setenv("DOCKER_HOST", address)
    with pytest.raises(
        SandboxUnavailableError, match=f"no Docker engine answers at {address}; start it"
    ):
        open_sandbox("docker")


def test_the_error_for_a_missing_permission_says_what_to_do(tmp_path):
    """As another user: root may use any socket."""
    code = (
        "import os, sys\nsys.path[:] = eval(sys.argv[2])\n"
        "from codedance.sandbox import SandboxError\n"
        "from codedance.sandbox.docker.engine import Engine\nimport docker, requests\n"
        "os.environ['DOCKER_HOST'] = sys.argv[1]\nos.getuid() or os.setuid(65534)\n"
        "try: Engine()\nexcept SandboxError as error: print(error)\n"
    )
    import socket

    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        os.chmod(path, 0)
        for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
            os.chmod(folder, 0o755)
        command = [sys.executable, "-c", code, f"unix://{path}", repr(sys.path)]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "no permission to use the Docker engine" in answer.stdout, answer
    assert "usermod -aG docker" in answer.stdout


def test_an_engine_that_stops_during_a_run_is_reported_when_needed(
    image, client, monkeypatch, tmp_path
):
    """Sessions continue without dockerd; a new container cannot be started."""
    with open_container(image, libraries=()) as sandbox, sandbox.session() as session:
        session.run("x = 1")
        with monkeypatch.context() as patch:
            patch.setenv("DOCKER_HOST", f"unix://{tmp_path}/gone.sock")
            assert session.run("x").stdout == "1\n"
            kill_container(client, sandbox.process_id)
            with pytest.raises(SandboxError, match="no Docker engine answers"):
                session.run("x")
        assert session.run("x").stdout == "1\n"


def test_a_python_can_be_selected_when_the_image_is_built():
    with pytest.raises(ValueError, match="codedance sandbox build --python PATH"):
        open_sandbox("docker", python="/usr/bin/python3")


def test_a_missing_sdk_is_reported():
    code = "import sys\nsys.modules['docker'] = None\nfrom codedance.sandbox import open_sandbox\n"
    code += "try: open_sandbox('docker')\nexcept Exception as e: print(type(e).__name__, e)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stdout.startswith(
        "SandboxUnavailableError the docker backend needs Docker's Python SDK"
    )


def test_two_sandboxes_have_separate_containers(image, own):
    with open_container(image, libraries=()) as other:
        assert other.process_id != own.process_id
        with own.session() as one, other.session() as two:
            assert one.run("1").stdout == two.run("1").stdout


def test_the_engine_can_be_closed_and_used_again(image):
    engine = Engine()
    engine.check_image(image)
    engine.close()
