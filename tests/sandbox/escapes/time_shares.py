"""Attempts 170 and above: keep the host from its clock, and other sessions from the cores."""

from .attempt import Attempt

_CLOCK = "the host checks its clock between the parts of a frame"
_MASKED = "import signal, struct\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\n"
_DRIP = (
    "fd = own_socket()\n"
    "def drip(count):\n"
    "    for _ in range(count):\n"
    "        os.write(fd, b'\\0'); time.sleep(0.0003)\n"
)
_WAITS_FOREVER = "without the host's clock the test would wait forever"

TIME_SHARES = (
    Attempt(
        "170",
        "drip the header of a reply, byte by byte, past the time limit",
        (f"{_MASKED}{_DRIP}os.write(fd, struct.pack('!II', 20_000, 0))\ndrip(20_000)",),
        ends="timeout",
        held_by=_CLOCK,
        why_no_control=_WAITS_FOREVER,
    ),
    Attempt(
        "171",
        "reply in time, then drip the pixels of an image",
        (
            f"{_MASKED}{_DRIP}import msgpack\n"
            "reply = msgpack.packb([2, 'ok', 'soon', '', None, [[100, 100]]])\n"
            "size = 100 * 100 * 4\nsend(reply, lengths=(len(reply), size))\n"
            "drip(size)",
        ),
        ends="timeout",
        held_by=_CLOCK,
        why_no_control=_WAITS_FOREVER,
    ),
    Attempt(
        "172",
        "out-of-band bytes: a socket that is ready without data, so that the host spins",
        (
            f"{_MASKED}import socket as s\n"
            "host = s.socket(fileno=os.dup(own_socket()))\n"
            "host.send(b'!', s.MSG_OOB)\n"
            "while True: time.sleep(1)",
        ),
        ends="killed PermissionError OSError",
        held_by="out-of-band bytes end the session",
        why_no_control=_WAITS_FOREVER,
    ),
    Attempt(
        "173",
        "swallow the signals that stop and continue a session",
        (
            "import signal\n"
            "def swallow(number, handler):\n"
            "    signal.signal(number, handler)\n"
            "    return number == signal.SIGSTOP and 'SIGSTOP has a handler'\n"
            "seen = []\n"
            "signal.signal(signal.SIGCONT, lambda *_: seen.append(1))\n"
            "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGSTOP, signal.SIGCONT])\n"
            "tries(lambda: swallow(signal.SIGSTOP, signal.SIG_IGN),\n"
            "      lambda: signal.SIGSTOP in signal.pthread_sigmask(signal.SIG_BLOCK, []))",
            "before = time.process_time()",
            "WAIT 0.3",
            "used = time.process_time() - before\n"
            "print('held') if used < 0.2 else escaped(f'{used} s between turns')",
        ),
        ends="ok",
        held_by="SIGSTOP cannot be caught, blocked or ignored",
        why_no_control="a property of the kernel; 105 removes the stop itself",
    ),
)
