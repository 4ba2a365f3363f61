"""Attempts 1 to 13: files of the host."""

from .attempt import Attempt

_FILE_LAYERS = "no such file in the mount namespace (full); landlock"

FILES = (
    Attempt(
        "1",
        "read a file of the host",
        ("tries(lambda: canary_in(open(FACTS['canary_file']).read()))",),
        ends="ok",
        held_by=_FILE_LAYERS,
        without=("landlock",),
    ),
    Attempt(
        "2",
        "read the shadow file",
        ("tries(lambda: open('/etc/shadow').read())",),
        ends="ok",
        held_by=f"{_FILE_LAYERS}; another user",
        without=("landlock", "user"),
    ),
    Attempt(
        "3",
        "list and read the trainer's home",
        (
            "import glob\n"
            "tries(lambda: os.listdir(FACTS['home']),\n"
            "      lambda: glob.glob(FACTS['home'] + '/*'),\n"
            "      lambda: canary_in(open(FACTS['home'] + '/canary.txt').read()))",
        ),
        ends="ok",
        held_by=_FILE_LAYERS,
        without=("landlock",),
    ),
    Attempt(
        "4",
        "walk the tree for the canary",
        (
            "import time\nend = time.monotonic() + 0.6\n"
            "for top in (os.path.dirname(FACTS['home']), '/home', '/root', '/etc', '/var'):\n"
            "    for folder, _, names in os.walk(top):\n"
            "        if time.monotonic() > end: break\n"
            "        for name in names:\n"
            "            try: canary_in(open(os.path.join(folder, name), 'rb').read(4096))\n"
            "            except OSError: pass\n"
            "print('held')",
        ),
        ends="ok",
        held_by=_FILE_LAYERS,
        without=("landlock",),
    ),
    Attempt(
        "5",
        "write to libraries, standard library, worker and devices",
        (
            "import numpy\n"
            "def write(path, mode='a'):\n"
            "    with open(path, mode) as file: return path\n"
            "tries(lambda: write(numpy.__file__), lambda: write(os.__file__),\n"
            "      lambda: write(numpy.__path__[0] + '/x.py', 'w'), lambda: write('/dev/x', 'w'),\n"
            "      lambda: write('/x', 'w'), lambda: write('/usr/lib/x', 'w'),\n"
            "      lambda: write(FACTS['home'] + '/canary.txt'),\n"
            "      lambda: write(FACTS['home'] + '/new.txt', 'w'),\n"
            "      lambda: os.remove(FACTS['canary_file']) or 'removed',\n"
            "      lambda: os.rename(numpy.__path__[0], 'mine') or 'renamed')",
        ),
        ends="ok",
        held_by="read-only root (full); landlock",
        without=("landlock",),
    ),
    Attempt(
        "6",
        "symbolic and hard links out",
        (
            "paths = (FACTS['canary_file'], '/etc/shadow', '/proc/1/environ', '/proc/self/maps')\n"
            "def through(path, name):\n"
            "    os.symlink(path, name)\n"
            "    return open(name, 'rb').read()\n"
            "def linked(path, name):\n"
            "    os.link(path, name)\n"
            "    return open(name, 'rb').read()\n"
            "tries(*[lambda p=p, i=i: through(p, f's{i}') for i, p in enumerate(paths)],\n"
            "      *[lambda p=p, i=i: linked(p, f'h{i}') for i, p in enumerate(paths)])",
        ),
        ends="ok",
        held_by=_FILE_LAYERS,
        without=("landlock",),
    ),
    Attempt(
        "7",
        "the root of a process",
        (
            "pids = ('1', 'self', FACTS['host_pid'], FACTS['zygote_pid'])\n"
            "tries(*[lambda p=p: open(f'/proc/{p}/' 'root/etc/passwd').read() for p in pids],\n"
            "      *[lambda p=p: os.listdir(f'/proc/{p}/root') for p in pids])",
        ),
        ends="ok",
        held_by="no /proc (full); landlock",
        without=("landlock",),
    ),
    Attempt(
        "8",
        "chroot and dots",
        (
            "def dots():\n"
            "    return open('../' * 30 + 'etc/passwd').read()\n"
            "def climb():\n"
            "    for _ in range(30): os.chdir('..')\n"
            "    return canary_in(open(FACTS['canary_file'].lstrip('/')).read())\n"
            "tries(dots, climb, lambda: os.chroot('.') or 'chroot',\n"
            "      lambda: reaches_kernel('chroot', 161, 51, b'.'))",
        ),
        ends="ok",
        held_by=f"{_FILE_LAYERS}; system-call filter",
        without=("landlock",),
    ),
    Attempt(
        "9",
        "open a file by its handle",
        (
            "tries(lambda: reaches_kernel('name_to_handle_at', 303, 264),\n"
            "      lambda: reaches_kernel('open_by_handle_at', 304, 265, -1, 0, 0))",
        ),
        ends="ok",
        held_by="system-call filter",
        without=("filter",),
    ),
    Attempt(
        "10",
        "devices: make one, open disks, memory, kvm, fuse",
        (
            "import stat\n"
            "def node():\n"
            "    os.mknod('d', stat.S_IFCHR | 0o600, os.makedev(1, 1))\n"
            "    return 'made a device'\n"
            "names = 'sda vda nvme0n1 mem kmem port kvm fuse loop0 loop-control tty ptmx shm'\n"
            "tries(node, lambda: reaches_kernel('mknodat', 259, 33, -1, b'd', 0o20600, 257),\n"
            "      *[lambda n=n: os.open('/dev/' + n, os.O_RDWR) for n in names.split()])",
        ),
        ends="ok",
        held_by="three devices only (full); landlock; system-call filter",
        without=("filter",),
    ),
    Attempt(
        "11",
        "fill the disk",
        (
            "total = 0\ntry:\n    for i in range(600):\n"
            "        with open(f'big{i}', 'wb') as file:\n"
            "            total += file.write(bytes(1 << 20))\n"
            "except OSError as error: print('refused:', error)\n"
            "most = FACTS['disk_mb'] + 1 if FACTS['tier'] == 'full' else 100\n"
            "print(total >> 20, 'MB'); print('held') if total <= most << 20 else escaped(total)",
        ),
        ends="ok OSError killed",  # raised a second time, after its own except
        held_by="size of its own tmpfs (full); a disk watchdog (confined)",
        why_no_control="the control is the disk of the machine that runs it",
    ),
    Attempt(
        "12",
        "use up the inodes",
        (
            "made = 0\ntry:\n    for made in range(40_000): open(str(made), 'w').close()\n"
            "except OSError as error: print('refused:', error)\n"
            "print('held') if made < 30_000 else escaped(made)",
        ),
        ends="ok OSError killed timeout",
        held_by="inodes of its own tmpfs (full); a disk watchdog (confined)",
        why_no_control="the control is the disk of the machine that runs it",
    ),
    Attempt(
        "13",
        "sysfs and cgroup files",
        (
            "tries(lambda: open('/sys/kernel/uevent_seqnum').read(), lambda: os.listdir('/sys'),\n"
            "      lambda: os.listdir('/sys/fs/cgroup'),\n"
            "      lambda: open('/sys/fs/cgroup/cgroup.procs', 'w').write('0'),\n"
            "      lambda: open('/proc/sys/kernel/core_pattern').read())",
        ),
        ends="ok",
        held_by=_FILE_LAYERS,
        without=("landlock",),
    ),
)
