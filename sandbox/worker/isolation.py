"""Isolation of zygote and sessions, at the strongest level that this machine supports.

``full``      user, pid, mount, net, ipc, uts and cgroup namespaces, a private tmpfs in a minimal
              read-only root, and all of ``confined``
``confined``  system-call filter, landlock, rlimits and no_new_privs, without namespaces
``none``      the same worker without isolation, for ``unsafe-subprocess``
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import tempfile
from typing import Any

from . import (
    disk_use,
    disk_watchdog,
    identity,
    kernel,
    landlock,
    lifetime,
    rootfs,
    seccomp,
    substitutes,
)
from .limits import MemoryInUse, limit_resources, memory_in_use
from .processes import Shares, find_shares, limit_processes
from .session import SessionPlan
from .stopwatch import Look

_LIBRARIES_DISK_MB = 16  # matplotlib writes its font list on import; not visible in sessions
_NAMESPACES = (
    kernel.CLONE_NEWUSER
    | kernel.CLONE_NEWNS
    | kernel.CLONE_NEWPID
    | kernel.CLONE_NEWNET
    | kernel.CLONE_NEWIPC
    | kernel.CLONE_NEWUTS
    | kernel.CLONE_NEWCGROUP
)


class Isolation:
    """No isolation; base class of the stronger levels.

    Args:
        config: Configuration from the host.
    """

    name = "none"
    description = "no isolation: the code can do whatever this user can"

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        self._zygote_pid = 0
        self._scratch = ""
        self._home = ""
        self._lifeline = -1
        self._ruleset = -1

    def enter(self) -> None:
        """Apply the steps before the libraries are loaded."""
        lifetime.die_with_trainer()
        self._home = _empty_home()

    def seal(self) -> None:
        """Apply the steps after the libraries are loaded, before the first session."""
        self._zygote_pid = os.getpid()
        shutil.rmtree(self._home, ignore_errors=True)
        self._keep_folders(None)

    def fork(self) -> int:
        """Fork a session; return 0 in the session, its process id in the zygote."""
        return os.fork()

    def raise_for_session(self, plan: SessionPlan) -> Look | None:
        """Confine this session's process before any model code runs.

        Returns:
            Check to call periodically while a block runs; None without one.
        """
        self._follow_zygote()
        lifetime.close_all_but({0, 1, 2, plan.connection_fd, self._ruleset})
        self._enter_own_folder()

    def await_sessions(self) -> None:
        """Wait until no session is left; the host, which is closing, kills them."""
        os.close(self._lifeline)
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)

    def _follow_zygote(self) -> None:
        kernel.die_with_parent(signal.SIGKILL)
        if os.getppid() != self._zygote_pid:
            raise OSError("the zygote died at this session's birth")

    def _keep_folders(self, bounds: disk_use.Bounds | None) -> None:
        """Create the parent of the sessions' folders, and start the disk watchdog."""
        self._scratch = tempfile.mkdtemp(prefix="codedance-")
        self._lifeline = disk_watchdog.start(self._scratch, bounds)

    def _enter_own_folder(self) -> str:
        """Create and enter the session's own folder.

        Its name cannot be guessed: code of another session could read names and sizes in it, which
        landlock does not restrict. One of an ended session with the same process id is moved away.
        """
        begin = f"{os.getpid()}-"
        for name in os.listdir(self._scratch):
            if name.startswith(begin):
                os.rename(f"{self._scratch}/{name}", f"{self._scratch}/old-{name}")
        folder = f"{self._scratch}/{begin}{os.urandom(16).hex()}"
        os.mkdir(folder, 0o700)
        os.chdir(folder)
        os.environ["HOME"] = os.environ["TMPDIR"] = folder
        return folder


class ConfinedIsolation(Isolation):
    """Restrictions of an unprivileged process without namespaces."""

    name = "confined"

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self._used = MemoryInUse()
        self._rules: list[tuple[str, int]] = []
        self._bounds = disk_use.Bounds.of_disk(config["limits"]["disk_mb"])
        self.description = (
            f"seccomp system-call filter, {landlock.describe()}, rlimits, no_new_privs; no "
            "namespaces: names and sizes of files are visible, their content and where links "
            "lead are not, and a watchdog limits the disk use"
        )

    def seal(self) -> None:
        """Drop root, and load the filter that sessions inherit."""
        self._zygote_pid = os.getpid()
        shutil.rmtree(self._home, ignore_errors=True)
        self._used = memory_in_use()
        layout = (self._config["base_prefix"], self._config["paths"])
        self._rules = rootfs.reading_rules(*layout)
        around_hidden = rootfs.rules_around_hidden(*layout)
        if identity.is_root():
            if not identity.refusal_of(lambda: identity.read_as_nobody(self._config["paths"])):
                identity.become_nobody()
            else:
                self.description += "; root without capabilities, as only root may read Python"
        kernel.drop_capabilities()
        limit_processes(find_shares().user)
        lifetime.die_with_trainer()  # a change of user or capabilities clears it
        kernel.set_no_new_privileges()
        seccomp.install(seccomp.zygote_program())
        self._keep_folders(self._bounds)
        self._ruleset = landlock.make_ruleset([*around_hidden, (self._scratch, landlock.WRITE)])

    def raise_for_session(self, plan: SessionPlan) -> Look:
        """Confine this process to its own folder, limits and process."""
        self._follow_zygote()
        os.setpgid(0, 0)
        lifetime.die_first(None)
        lifetime.close_all_but({0, 1, 2, plan.connection_fd, self._ruleset})
        folder = self._enter_own_folder()
        disk_use.handle_disk_watchdog()
        ruleset = landlock.make_ruleset([*self._rules, (folder, landlock.WRITE)])
        limit_resources(plan.limits, self._used, count_threads=False)
        for one in (self._ruleset, ruleset):  # each of the two has to allow an access
            landlock.restrict(one)
            os.close(one)
        program = seccomp.session_program(
            os.getpid(), is_confined=True, threads=False, truncates=landlock.abi() >= 3
        )
        seccomp.install(program)
        substitutes.replace_refused_calls()
        return disk_use.OwnDisk(folder, self._bounds).look


class FullIsolation(Isolation):
    """Namespaces of its own: nothing outside can be named or reached."""

    name = "full"

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self._shares = Shares()
        self._proc = -1
        self._own_pid_namespace = -1
        self._used = MemoryInUse()
        self.description = (
            "user, pid, mount, net, ipc, uts and cgroup namespaces; read-only root of Python and "
            "its libraries, private tmpfs; seccomp system-call filter; "
            f"{f'landlock {landlock.abi()}' if landlock.abi() else 'no landlock'}; "
            "rlimits; no_new_privs; no capabilities"
        )

    def enter(self) -> None:
        """Enter the namespaces and the minimal root, and continue as process 1."""
        self.enter_namespaces()
        lifetime.die_with_trainer()
        _continue_as_first_process()
        kernel.die_with_parent(signal.SIGKILL)
        kernel.set_host_name(b"sandbox")
        rootfs.mount_private_folder(_LIBRARIES_DISK_MB)
        self._own_pid_namespace = os.open("self/ns/pid", os.O_RDONLY, dir_fd=self._proc)

    def enter_namespaces(self) -> None:
        """Move this process into the namespaces and the minimal root."""
        self._shares = find_shares()
        limit_processes(self._shares.user)
        self._proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
        paths: list[str] = self._config["paths"]
        sources = rootfs.folders_of_libraries(self._config["base_prefix"], paths)
        if identity.is_root():  # as root: an interpreter in an unreadable home can be mounted too
            kernel.unshare(kernel.CLONE_NEWNS)
            rootfs.build_root(sources, paths)
            identity.become_nobody()
            self._enter_user_namespace(_NAMESPACES, inside=0)
        else:
            self._enter_user_namespace(_NAMESPACES, inside=0)
            rootfs.build_root(sources, paths)

    def seal(self) -> None:
        """Create the resources that all sessions share: landlock ruleset and first filter."""
        self._zygote_pid = os.getpid()
        self._used = memory_in_use(self._proc)
        if landlock.abi():
            self._ruleset = landlock.make_ruleset(
                [
                    ("/", landlock.READ),
                    ("/dev", landlock.USE_DEVICE),
                    (rootfs.SESSION_FOLDER, landlock.WRITE),
                ]
            )
        kernel.set_no_new_privileges()
        seccomp.install(seccomp.zygote_program())

    def fork(self) -> int:
        """Fork a session as process 1 of a pid namespace of its own."""
        kernel.unshare(kernel.CLONE_NEWPID)
        pid = -1
        try:
            pid = os.fork()
        finally:
            if pid:  # return, or the next session could get no namespace of its own
                kernel.setns(self._own_pid_namespace, kernel.CLONE_NEWPID)
        return pid

    def await_sessions(self) -> None:
        """Return immediately: sessions do not outlive process 1 of their pid namespace."""

    def raise_for_session(self, plan: SessionPlan) -> None:
        """Confine this process; each step needs the privileges that later ones drop."""
        # Not the zygote's group; a session would have as much processor time as the trainer.
        os.setpgid(0, 0)
        lifetime.die_first(self._proc)
        self.enter_session_namespaces(plan.limits["disk_mb"])
        lifetime.close_all_but({0, 1, 2, plan.connection_fd, self._ruleset})
        limit_resources(plan.limits, self._used, count_threads=True)
        kernel.drop_capabilities()
        if self._ruleset >= 0:
            landlock.restrict(self._ruleset)
            os.close(self._ruleset)
        seccomp.install(seccomp.session_program(os.getpid()))

    def enter_session_namespaces(self, disk_mb: int) -> None:
        """Enter a private user and mount namespace."""
        limit_processes(self._shares.sessions)
        self._enter_user_namespace(
            kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS, inside=identity.NOBODY
        )
        rootfs.mount_private_folder(disk_mb)

    def _enter_user_namespace(self, kinds: int, *, inside: int) -> None:
        """Enter new namespaces in which this user and group map to ``inside``."""
        user, group = os.geteuid(), os.getegid()
        kernel.unshare(kinds)
        self._write("self/setgroups", "deny")
        self._write("self/uid_map", f"{inside} {user} 1")
        self._write("self/gid_map", f"{inside} {group} 1")

    def _write(self, path: str, text: str) -> None:
        descriptor = os.open(path, os.O_WRONLY, dir_fd=self._proc)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)


def choose_isolation(config: dict[str, Any]) -> Isolation:
    """Return the requested isolation, or the strongest that works here (``auto``).

    Raises:
        OSError: No level is available; the message says why for each.
    """
    if config["isolation"] == "none":
        return Isolation(config)
    identity.require_process_handles()
    if config["isolation"].startswith("layers:"):
        from .layers import LayeredIsolation

        return LayeredIsolation(config)
    refusal = "not requested"
    if config["isolation"] in ("auto", "full"):
        refusal = identity.refusal_of(lambda: _try_full(config))
        if not refusal:
            return FullIsolation(config)
    if config["isolation"] == "full" or not landlock.abi():
        missing = "" if landlock.abi() else "; no landlock either (Linux 5.13 or later has it)"
        raise OSError(f"no user namespaces: {refusal}{missing}")
    isolation = ConfinedIsolation(config)
    isolation.description += f" (full isolation: {refusal})"
    return isolation


def _try_full(config: dict[str, Any]) -> None:
    isolation = FullIsolation(config)
    isolation.enter_namespaces()
    isolation.enter_session_namespaces(1)


def _continue_as_first_process() -> None:
    """Fork into the new pid namespace; the parent closes all files and waits for the child."""
    pid = os.fork()
    if pid == 0:
        return
    os.closerange(0, 4096)
    os.waitpid(pid, 0)
    os._exit(0)


def _empty_home() -> str:
    """Create an empty home for the import of libraries, without the settings of a user."""
    folder = tempfile.mkdtemp(prefix="codedance-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["HOME"] = f"{folder}/0"  # named like sessions' folders, which digests leave out
    os.mkdir(os.environ["HOME"], 0o700)
    return folder
