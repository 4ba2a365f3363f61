"""What the worker does where the kernel lacks a call."""

import mmap
import os
import subprocess
import sys

import pytest
from codedance.sandbox.host.pictures import _sealed
from codedance.sandbox.worker import session

from .conftest import has_namespaces

_REMOUNT = """
import errno, os, sys
from codedance.sandbox.worker import kernel
outer, user, group = sys.argv[1], os.getuid(), os.getgid()
kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS)
for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
    with open(f"/proc/self/{name}", "w") as file:
        file.write(text)
kernel.mount("none", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
kernel.mount("outer", outer, "tmpfs", 0)
for name in ("inner mount", "shown"):
    os.mkdir(f"{outer}/{name}")
kernel.mount("inner", f"{outer}/inner mount", "tmpfs", kernel.MS_NOEXEC)
os.mkdir(f"{outer}/inner mount/deep")
kernel.mount(f"{outer}/inner mount", f"{outer}/shown", "", kernel.MS_BIND | kernel.MS_REC)
kernel.mount("deep", f"{outer}/shown/deep", "tmpfs", 0)
if sys.argv[2] == "absent":
    def absent(number, *arguments):
        raise OSError(errno.ENOSYS, "system call")
    kernel.call = absent
kernel.make_read_only(f"{outer}/shown")
for folder in ("shown", "shown/deep", "inner mount"):
    try:
        os.mkdir(f"{outer}/{folder}/new")
        print(folder, "written")
    except OSError as error:
        print(folder, errno.errorcode[error.errno])
with open("/proc/self/mountinfo") as file:
    for line in file:
        if "/shown" in line.split(" ")[4]:
            options = line.split(" ")[5].split(",")
            print(*sorted({"ro", "nosuid", "nodev", "noexec"} & set(options)))
"""


@pytest.mark.skipif(not has_namespaces(), reason="no user namespaces here")
@pytest.mark.parametrize("call", ["there", "absent"])
def test_all_mounts_below_a_folder_become_read_only(call, tmp_path):
    """With `mount_setattr`, and without it, before Linux 5.12."""
    command = [sys.executable, "-c", _REMOUNT, tmp_path, call]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "shown EROFS",
        "shown/deep EROFS",
        "inner mount written",
        "nodev noexec nosuid ro",
        "nodev nosuid ro",
    ]


def test_pixels_of_an_input_are_read_where_sealed_memory_cannot_be_shared(monkeypatch):
    """Linux 5.4 refuses to map memory that is sealed against writing, unless it is private."""
    real = mmap.mmap

    def old(fd, length, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE):
        if flags & mmap.MAP_SHARED:
            raise PermissionError(1, "Operation not permitted")
        return real(fd, length, flags=flags, prot=prot)

    monkeypatch.setattr(session.mmap, "mmap", old)
    descriptor = _sealed(bytes(range(12)))
    try:
        assert session._load_picture(descriptor, (2, 2)).tobytes() == bytes(range(12))
    finally:
        os.close(descriptor)
