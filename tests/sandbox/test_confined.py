"""The level without namespaces isolates folder, disk, parents and modes by other means."""

import os
import resource
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from codedance.sandbox import Outcome
from codedance.sandbox.worker.disk_watchdog import Rubbish

from .conftest import SMALL, open_isolated
from .folders import folder_of


@pytest.fixture(params=["confined", "docker_confined"])
def nameless(request):
    """The level without namespaces: on this machine, and in a container that refuses them."""
    return request.getfixturevalue(request.param)


def run(sandbox, code):
    with sandbox.session() as session:
        return session.run(code)


FILL = "with open(str(n), 'wb') as f: f.write(bytes(1 << 20))\n"


def test_many_files_cannot_fill_the_disk(nameless):
    """11: SMALL allows 8 MB; the watchdog raises the error of a full disk."""
    execution = run(nameless, "for n in range(10**6):\n    " + FILL)
    assert execution.outcome is Outcome.ERROR
    assert execution.error.startswith("OSError: [Errno 28] No space left on device, line ")


@pytest.mark.parametrize("hidden", ["", "; os.unlink(str(n)); kept.append(f)"])
def test_a_loop_reaches_its_own_limit_while_the_watchdog_waits_for_a_core(confined, hidden):
    """11: a fiftieth of a second becomes long if more processes run than there are cores."""
    code = "import os\nn = 0\nkept = []\ntry:\n    while n < 600:\n        n += 1\n"
    code += "        f = open(str(n), 'wb', 0); f.write(bytes(1 << 20))" + hidden + "\n"
    code += "except OSError as error: print(error.strerror)\nn"
    with confined.session() as session:
        watchdog = _watchdog_of(folder_of(session))
        os.kill(watchdog, signal.SIGSTOP)
        try:
            said, files = session.run(code).stdout.split("\n")[:2]
        finally:
            os.kill(watchdog, signal.SIGCONT)
    bounds = ["No space left on device"]  # checks are due by processor time, which writing is not
    bounds += ["Too many open files"] if hidden else []  # also bounds unlinked files
    assert said in bounds
    assert 8 <= int(files) < 600


@pytest.mark.parametrize(
    ("small_files", "open_files"), [pytest.param(8_000, 64, marks=pytest.mark.slow), (1, 4_000)]
)
def test_a_check_longer_than_its_timer_starts_no_other(small_files, open_files):
    """Each nested check is a deeper call, until the block gets a RecursionError."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limits = replace(SMALL, wall_seconds=60.0, open_files=min(open_files, hard), disk_mb=128)
    code = f"""
import sys, time
for n in range({small_files}): open(str(n), "w").close()
sys.setrecursionlimit(100)
end = time.process_time() + 0.7
while time.process_time() < end: pass
print("whole")
"""
    with open_isolated("confined", limits) as sandbox:
        execution = run(sandbox, code)
    assert (execution.stdout, execution.error) == ("whole\n", None)


def _watchdog_of(folder):
    """Return the process that watches a session's folder: the other child of its parent."""
    own = Path(folder).name.partition("-")[0]
    zygote = _parent_of(own)
    siblings = [p.name for p in Path("/proc").iterdir() if p.name.isdigit()]
    (watchdog,) = [int(p) for p in siblings if _parent_of(p) == zygote and p != own]
    return watchdog


def _parent_of(process_id):
    try:
        return int(Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[1])
    except FileNotFoundError:
        return None


def test_many_empty_files_cannot_fill_the_inodes(nameless):
    """12."""
    execution = run(nameless, "for n in range(10**7): open(str(n), 'w').close()")
    assert execution.error.startswith("OSError: [Errno 28] No space left on device")


def test_a_deep_tree_is_counted(nameless):
    code = "import os\nwhile True:\n    os.mkdir('d'); os.chdir('d')"
    assert run(nameless, code).error.startswith(("OSError: [Errno 28]", "OSError: [Errno 36]"))


def test_unlinked_files_are_counted(nameless):
    """Unlinked while open, and unlinked, closed and mapped: they are in no listing."""
    opened = "import os\nkept = []\nfor n in range(50):\n    f = open('x', 'wb'); os.unlink('x')\n"
    opened += "    f.write(bytes(1 << 20)); f.flush(); kept.append(f)\nimport time; time.sleep(2)"
    assert run(nameless, opened).error.startswith("OSError: [Errno 28]")
    mapped = "import mmap, os\nkept = []\nfor n in range(50):\n    f = open('x', 'w+b')\n"
    mapped += "    f.write(bytes(1 << 20)); f.flush(); os.unlink('x')\n"
    mapped += "    kept.append(mmap.mmap(f.fileno(), 4096)); f.close()\nimport time; time.sleep(2)"
    assert run(nameless, mapped).error.startswith("OSError: [Errno 28]")


# In a container the shared tmpfs may be full before the watchdog kills:
ENDED = (Outcome.KILLED, Outcome.ERROR)


def test_code_that_ignores_the_watchdog_is_killed(nameless):
    code = "import signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nn = 0\nwhile True:\n"
    code += "    n += 1\n    " + FILL
    with nameless.session() as session:
        session.run("x = 2")
        assert session.run(code).outcome in ENDED
        assert session.run("x").stdout == "2\n"


def test_a_session_within_its_limits_is_not_killed(nameless):
    code = "import os, time\nfor n in range(6):\n    " + FILL
    code += "time.sleep(0.3)\nfor n in range(6): os.unlink(str(n))\n"
    assert run(nameless, code * 3 + "print('done')").stdout == "done\n"


def test_an_unreadable_folder_hides_nothing(confined):
    code = "import os, time\nos.mkdir('open'); os.mkdir('closed', 0)\ntime.sleep(3)"
    assert run(confined, code).error.startswith("OSError: [Errno 28] No space left on device")


def test_any_folder_of_a_closed_session_is_removed(confined):
    with confined.session() as session:
        folder = folder_of(session)
        session.run("for _ in range(20): os.mkdir('d' * 40); os.chdir('d' * 40)")
        session.run("os.mkdir('closed', 0)")
        assert os.path.isdir(folder)
    deadline = time.monotonic() + 60
    while (left := _rubbish(folder)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert left == []


def _rubbish(folder):
    """Return leftovers of a session's folder: itself, or parts being removed."""
    place = Path(folder).parent
    return [p.name for p in place.iterdir() if p.name.startswith("gone-") or str(p) == folder]


def test_removal_of_leftovers_follows_no_link(tmp_path):
    """Of a folder, of an entry in it, and of a folder that was replaced after it was added."""
    outside, place = tmp_path / "outside", tmp_path / "place"
    (outside / "kept").mkdir(parents=True)
    outside.chmod(0o755)
    for name in ("plain", "later"):
        (place / name).mkdir(parents=True)
    (place / "plain" / "entry").symlink_to(outside)
    (place / "link").symlink_to(outside)
    rubbish = Rubbish(str(place))
    for name in ("plain", "link", "later"):
        rubbish.add(str(place / name))
    (moved,) = [path for path in place.iterdir() if not list(path.iterdir())]
    moved.rename(tmp_path / "elsewhere")
    moved.symlink_to(outside)
    rubbish.clear(100)
    assert (outside / "kept").is_dir()
    assert outside.stat().st_mode & 0o777 == 0o755
    assert list(place.iterdir()) == []


def test_the_parent_process_is_hidden(nameless):
    code = (
        "import os, socket, struct\nprint(os.getppid(), os.getpgrp(), os.getsid(0), os.getpgid(0))"
    )
    assert run(nameless, code).stdout == "0 0 0 0\n"
    code = "import socket\na, b = socket.socketpair()\na.getsockopt(socket.SOL_SOCKET, 17, 12)"
    assert run(nameless, code).error.startswith("PermissionError")
    code = "import socket\na, b = socket.socketpair()\nprint(a.getsockopt(socket.SOL_SOCKET, 4))"
    assert run(nameless, code).stdout == "0\n"


def test_nothing_waits_for_the_hosts_disk(nameless):
    """The calls report success and write nothing at once; what was written is read back."""
    code = "import mmap, os\nf = open('f', 'w+b')\nf.write(b'x' * 4096)\nf.flush()\n"
    code += "os.fsync(f.fileno())\nos.fdatasync(f.fileno())\nm = mmap.mmap(f.fileno(), 0)\n"
    code += "m[:2] = b'yz'\nm.flush()\nprint(open('f').read(4))"
    assert run(nameless, code).stdout == "yzxx\n"


def test_calls_that_are_refused_or_pretended_have_a_substitute(confined):
    """A file gets its length, but no disk is reserved; a path with links stays as it is."""
    code = "import os\nfrom pathlib import Path\nf = os.open('f', os.O_CREAT | os.O_RDWR)\n"
    code += "os.posix_fallocate(f, 0, 1 << 20)\nos.symlink('f', 'l')\n"
    code += "here = os.getcwd()\nprint(os.fstat(f).st_size, os.path.realpath('f') == here + '/f',\n"
    code += "      os.path.realpath('l') == here + '/l', Path('l').resolve().name, "
    code += "open('l').read(1))"
    assert run(confined, code).stdout == "1048576 True True l \x00\n"


def test_its_own_root_in_proc_is_inaccessible(nameless):
    for start in ("", *(f"/proc/{one}/" + "root" for one in ("self", "1"))):
        path = f"{start}/etc/passwd"
        assert run(nameless, f"open({path!r}).read()").outcome is Outcome.ERROR


def test_a_sibling_is_accessible_neither_by_name_nor_by_link(nameless):
    with nameless.session() as one, nameless.session() as two:
        one.run("open('mine', 'w').write('x')")
        folder = folder_of(one)
        direct = f"open({folder + '/mine'!r}).read()"
        linked = f"import os\nos.symlink({folder + '/mine'!r}, 'l')\nopen('l').read()"
        for code in (direct, linked, f"import os; os.listdir({folder!r})"):
            assert two.run(code).error.startswith("PermissionError")
        assert one.run("open('mine').read()").stdout == "'x'\n"


def test_a_sibling_sees_neither_names_nor_sizes_of_files(nameless):
    """The filter cannot refuse `stat` of some names, so the folder's is a secret."""
    with nameless.session() as one, nameless.session() as two:
        one.run("open('vote', 'w').write('x' * 41)")
        place, _, name = folder_of(one).rpartition("/")
        pid, _, secret = name.partition("-")
        assert len(secret) == 32
        ways = [
            f"{place}/{pid}",
            f"{place}/{pid}-",
            f"/proc/{pid}/cwd",
            f"/proc/{pid}/task/{pid}/cwd",
        ]
        code = f"import os\nfor way in {ways}:\n    print(os.path.exists(way + '/vote'))\n"
        code += f"for way in ({place!r}, '/proc/{pid}/fd'):\n"
        code += "    try: print(os.listdir(way))\n    except OSError: print('refused')"
        assert two.run(code).stdout == "False\n" * len(ways) + "refused\nrefused\n"


@pytest.mark.parametrize("call", ["os.fchmod(os.open(p, os.O_RDONLY), 0)", "os.chmod(p, 0)"])
def test_modes_of_readable_files_are_unchanged(confined, call):
    path = Path(os.__file__)
    before = path.stat().st_mode
    run(confined, f"import os; p = {str(path)!r}; {call}")
    assert path.stat().st_mode == before


SIZES = """
import os
place, own = os.path.split(os.getcwdb().decode())
for pid in range(os.getpid() - 200, os.getpid() + 200):
    for name in (str(pid), f"{pid}-{own.partition('-')[2]}"):
        try: print(os.stat(f"{place}/{name}/note").st_size)
        except OSError: pass
"""


def test_a_session_cannot_read_a_message_in_the_folder_of_another(nameless):
    """Landlock does not restrict names and sizes, so the folder's name must not be known."""
    with nameless.session() as teller, nameless.session() as listener:
        teller.run("open('note', 'wb').write(bytes(4242))")
        assert listener.run("open('note', 'wb').write(bytes(17))").is_ok
        execution = listener.run(SIZES)
    assert execution.error is None
    assert "4242" not in execution.stdout
