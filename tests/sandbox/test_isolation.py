"""Model code cannot access files, processes, network and kernel of the host."""

import os
import socket
import time
from pathlib import Path

import pytest
from codedance.sandbox import Outcome
from sampling import sampled

from .attempts import FILES, NETWORK, ONLY_X86, PROCESSES, SYSTEM_CALLS
from .folders import folder_of

PRELUDE = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(number, *arguments):
    passed = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    if libc.syscall(ctypes.c_long(number), *passed) >= 0:
        return "ALLOWED"
    return errno.errorcode[ctypes.get_errno()]
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """Targets on the host: a file to read, a port to reach, a process to signal."""
    home = tmp_path_factory.mktemp("home")
    (home / "canary").write_text("the answer")
    os.chmod(home / "canary", 0o666)  # the isolation must protect it, not its mode
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        names = f"HOME = {str(home)!r}\nCANARY_FILE = {str(home / 'canary')!r}\n"
        yield names + f"PORT = {port}\nHOST_PID = {os.getpid()}\n"


@pytest.mark.parametrize(
    "attempt", sampled([*FILES, *PROCESSES, *NETWORK]), ids=lambda attempt: attempt.name
)
def test_an_attempt_is_refused_and_harms_nothing(isolated, host, attempt):
    with isolated.session() as sibling, isolated.session() as session:
        sibling.run("x = 41")
        assert session.run(host).is_ok
        execution = session.run(attempt.code)
        assert execution.outcome is Outcome.ERROR, execution
        assert execution.error.startswith(attempt.refusals), execution.error
        assert session.run("print(PORT > 0)").stdout == "True\n"
        assert sibling.run("x + 1").stdout == "42\n"
    with isolated.session() as fresh:
        assert fresh.run("print('sound')").stdout == "sound\n"


@ONLY_X86
def test_dangerous_system_calls_are_refused(isolated):
    with isolated.session() as session:
        session.run(PRELUDE)
        numbers = list(SYSTEM_CALLS.values())
        verdicts = session.run(f"print(*[call(n, 0, 0, 0, 0, 0) for n in {numbers}])").stdout
    assert dict(zip(SYSTEM_CALLS, verdicts.split(), strict=True)) == dict.fromkeys(
        SYSTEM_CALLS, "EPERM"
    )


@ONLY_X86
def test_harmless_calls_work_as_a_positive_control(isolated):
    with isolated.session() as session:
        session.run(PRELUDE)
        assert session.run("print(call(39), call(102))").stdout == "ALLOWED ALLOWED\n"


@ONLY_X86
@pytest.mark.parametrize(
    ("name", "expression", "answer"),
    [
        ("20 clone without a thread", "call(56, 17, 0, 0, 0, 0)", ("EPERM", "EAGAIN")),
        ("20 clone3", "call(435, 0, 0)", ("ENOSYS",)),
        ("20 a new user namespace by clone", "call(56, 0x10000000 | 17, 0)", ("EPERM", "EAGAIN")),
        ("42 no more no_new_privs", "call(157, 38, 0, 0, 0, 0)", ("EPERM",)),
        ("42 prctl seccomp", "call(157, 22, 0, 0, 0, 0)", ("EPERM",)),
        ("42 prctl dumpable", "call(157, 4, 1, 0, 0, 0)", ("EPERM",)),
        ("42 undo dying with the zygote", "call(157, 1, 0, 0, 0, 0)", ("EPERM",)),
        ("44 TIOCSTI", "call(16, 0, 0x5412, 0)", ("EPERM",)),
        ("own 21 signals through a file's owner", "call(72, 0, 8, 1)", ("EPERM",)),
        ("own 22 the signal of a file's owner", "call(72, 0, 10, 9)", ("EPERM",)),
        ("52 a larger pipe", "call(72, os.pipe()[0], 1031, 1 << 20)", ("EPERM",)),
        ("46 limits of another process", "call(302, 2, 7, 0, 0)", ("EPERM",)),
        ("49 shared memory past the limit", "call(9, 0, 4096, 3, 0x21, -1, 0)", ("ENOMEM",)),
        ("49 a growing stack", "call(9, 0, 4096, 3, 0x122, -1, 0)", ("ENOMEM",)),
    ],
)
def test_calls_are_filtered_by_their_arguments(isolated, name, expression, answer):
    with isolated.session() as session:
        session.run(PRELUDE)
        assert session.run(f"print({expression})").stdout.strip() in answer, name


@ONLY_X86
def test_the_x32_abi_kills_only_the_session(isolated):
    with isolated.session() as session:
        session.run(PRELUDE)
        assert session.run("call(0x40000000 | 39)").outcome is Outcome.KILLED
        assert session.run("print(1)").stdout == "1\n"


def test_what_no_session_may_signal_by_still_works_within_one(isolated):
    """Locks, pairs of sockets, and joins of threads, for which libc waits on shared memory."""
    code = """
import asyncio, fcntl, socket, sqlite3, threading
with sqlite3.connect("base") as base:
    base.execute("create table t (x)"); base.execute("insert into t values (41)")
with open("base") as file:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB); fcntl.lockf(file, fcntl.LOCK_SH)
one, two = socket.socketpair()
one.sendall(b"x")
print(base.execute("select x + 1 from t").fetchall(), two.recv(1), asyncio.run(asyncio.sleep(0, 7)))
import ctypes
joined, thread = [], ctypes.c_ulong()
libc = ctypes.CDLL(None)
work = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(lambda _: joined.append(1))
if not libc.pthread_create(ctypes.byref(thread), None, work, None):  # none at a lower level
    joined = [libc.pthread_join(thread, None), *joined]
print(joined)
"""
    with isolated.session() as session:
        said = session.run(code)
    assert said.stdout in ("[(42,)] b'x' 7\n[0, 1]\n", "[(42,)] b'x' 7\n[]\n"), said


def test_modes_and_times_of_the_trainers_files_are_unchanged(confined, tmp_path):
    """Landlock does not protect them, and the session may have the trainer's user."""
    file = tmp_path / "file"
    file.write_text("x")
    file.chmod(0o666)
    tmp_path.chmod(0o777)
    before = file.stat()
    with confined.session() as session:
        session.run(f"import os\nos.utime({str(file)!r})\nos.chmod({str(file)!r}, 0)")
        assert session.run("open('f', 'w').close(); import shutil; shutil.copy('f', 'g')").is_ok
    assert (file.stat().st_mode, file.stat().st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


def test_limits_cannot_be_raised(isolated):
    code = "import resource as r\nfor kind in (r.RLIMIT_DATA, r.RLIMIT_NOFILE, r.RLIMIT_AS):\n"
    code += "    try: r.setrlimit(kind, (-1, -1)); print('RAISED')\n"
    code += "    except (ValueError, OSError): print('held')"
    with isolated.session() as session:
        assert session.run(code).stdout == "held\nheld\nheld\n"


def test_a_session_is_not_root_and_has_no_capabilities(full):
    with full.session() as session:
        session.run(PRELUDE)
        assert (
            session.run("print(os.getuid(), os.geteuid(), os.getpid())").stdout == "65534 65534 1\n"
        )
        execution = session.run("open('f', 'w').close(); os.chown('f', 0, 0)")
        assert execution.error.startswith("PermissionError")


def test_the_root_contains_python_and_no_user_files(full):
    with full.session() as session:
        seen = session.run("import os; print(*sorted(os.listdir('/dev')))").stdout
        assert seen == "null random urandom\n"
        assert session.run(
            "print(os.path.exists('/etc/passwd'), os.path.exists('/bin'))"
        ).stdout == ("False False\n")
        assert session.run("print(os.uname().nodename)").stdout == "sandbox\n"


def test_signals_to_all_processes_reach_none(full):
    """18 and 19: the filter refuses them, and a session is alone in its own pid namespace."""
    with full.session() as sibling, full.session() as session:
        sibling.run("x = 41")
        code = "import os\nfor pid in [-1, *range(2, 400)]:\n    try: os.kill(pid, 9)\n"
        code += "    except PermissionError: pass\n    else: print('REACHED', pid)\nprint('alone')"
        assert session.run(code).stdout == "alone\n"
        assert sibling.run("x + 1").stdout == "42\n"


def test_a_session_that_stops_itself_is_killed_in_time(full):
    """24: a process 1 cannot stop itself; the block continues."""
    with full.session() as session:
        execution = session.run("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)\nprint(1)")
        assert execution.stdout == "1\n"


def test_sessions_cannot_access_each_others_files(isolated):
    with isolated.session() as one, isolated.session() as other:
        one.run("open('mine', 'w').write('x')")
        folder = folder_of(one)
        assert one.run("print(open('mine').read())").stdout == "x\n"
        assert other.run(f"open({folder + '/mine'!r}).read()").outcome is Outcome.ERROR


def test_a_session_has_only_its_own_descriptors(isolated):
    """35, 36: neither the control socket nor a sibling's; three are /dev/null."""
    code = (
        "import os\nopened = []\nfor fd in range(200):\n    try: os.fstat(fd); opened.append(fd)\n"
    )
    code += "    except OSError: pass\nprint(len(opened))"
    with isolated.session() as sibling, isolated.session() as session:
        sibling.run("1")
        assert session.run(code).stdout == "4\n"


def test_secrets_of_the_trainer_are_inaccessible(isolated, monkeypatch):
    """26 to 29: environment, C environ, argv, every object known to the garbage collector."""
    secret = f"canary-{time.time_ns()}"
    monkeypatch.setenv("API_KEY", secret)
    half, rest = secret[:9], secret[9:]
    code = f"""
import ctypes, gc, os, sys
needle = {half!r} + {rest!r}
found = []
environ = ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), "environ")
index = 0
while environ[index]:
    found += [environ[index]] if needle.encode() in environ[index] else []
    index += 1
found += [v for v in os.environ.values() if needle in v]
found += [v for v in sys.argv + sys.orig_argv if needle in v]
mine = {{id(needle)}}
for holder in gc.get_objects():
    for thing in gc.get_referents(holder):
        if type(thing) is str and id(thing) not in mine and needle in thing:
            found.append(thing)
print(len(found), sys.argv, sys.orig_argv)
"""
    with isolated.session() as session:
        assert session.run(code).stdout == "0 [''] ['']\n"


def test_the_zygote_was_started_with_harmless_arguments_only(full):
    """30: it is executed, so its memory never contained the trainer's; checked from outside."""
    environment = Path(f"/proc/{full.process_id}/environ").read_bytes()
    names = {entry.partition(b"=")[0] for entry in environment.split(b"\0") if entry}
    assert names <= {
        b"PATH",
        b"HOME",
        b"LANG",
        b"TZ",
        b"PYTHONHASHSEED",
        b"MPLBACKEND",
        b"MALLOC_ARENA_MAX",
        b"OMP_NUM_THREADS",
        b"OPENBLAS_NUM_THREADS",
        b"MKL_NUM_THREADS",
        b"OPENCV_OPENCL_RUNTIME",
        b"LD_LIBRARY_PATH",
    }
