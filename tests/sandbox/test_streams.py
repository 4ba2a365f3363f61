"""A block's output is returned with that block, however it is written."""

import pytest

WRAP = "import io, sys\nsys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding='utf-8')\n"
IN_A_BLOCK = {
    "a wrapper over the buffer": (f"{WRAP}print('é', 5)", "é 5\n"),
    "a wrapper, then an error": (f"{WRAP}print(5)\n1 / 0", "5\n"),
    "a wrapper, then the last expression": (f"{WRAP}print(5)\n7", "5\n7\n"),
    "a wrapper, then display": (f"{WRAP}print(5)\ndisplay(7)\nprint(9)", "5\n7\n9\n"),
    "a wrapper in a variable": (
        "import io, sys\nw = io.TextIOWrapper(sys.stdout.buffer)\nprint(5, file=w)",
        "5\n",
    ),
    "a wrapper in a list": (
        "import io, sys\nw = [io.TextIOWrapper(sys.stdout.buffer)]\nprint(5, file=w[0])",
        "5\n",
    ),
    "a wrapper that is dropped": (
        "import io, sys\nprint(5, file=io.TextIOWrapper(sys.stdout.buffer))\nprint(6)",
        "5\n6\n",
    ),
    "a duplicate of the descriptor": (
        "import os, sys\no = os.fdopen(os.dup(sys.stdout.fileno()), 'w')\n_ = o.write('5\\n')",
        "5\n",
    ),
    "a stream over the descriptor in a list": (
        "import os, sys\nheld = [os.fdopen(sys.stdout.fileno(), 'w', closefd=False)]\n"
        "_ = held[0].write('5\\n')",
        "5\n",
    ),
    "a duplicate of descriptor 1": (
        "import os, sys\nsys.stdout = os.fdopen(os.dup(1), 'w')\nprint(5)",
        "5\n",
    ),
    "descriptor 1, opened by name": (
        "w = open(file=1, mode='w', closefd=False)\n_ = w.write('5')",
        "5",
    ),
    "descriptor 1, written from parts": ("import os\n_ = os.writev(1, [b'5\\n'])", "5\n"),
    "an encoding with a mark": (
        "import sys\nsys.stdout.reconfigure(encoding='utf-16')\nprint('é')\nsys.stdout.flush()\n"
        "print(5)",
        "é\n5\n",
    ),
    "a wrapper over the raw stream": (
        "import io, sys\nw = io.TextIOWrapper(io.BufferedWriter(sys.stdout.buffer.raw))\n"
        "print(5, file=w)",
        "5\n",
    ),
    "another encoding": (
        "import io, sys\nsys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding='gb18030')\n"
        "print('数')",
        "数\n",
    ),
    "reconfigured to another encoding": (
        "import sys\nsys.stdout.reconfigure(encoding='latin-1')\nprint('é')",
        "é\n",
    ),
    "reconfigured": (
        "import sys\nsys.stdout.reconfigure(line_buffering=True, write_through=True)\n"
        "print(5, sys.stdout.line_buffering, sys.stdout.write_through)",
        "5 True True\n",
    ),
    "a writer of codecs": (
        "import codecs, sys\nsys.stdout = codecs.getwriter('utf-8')(sys.stdout.buffer)\nprint('é')",
        "é\n",
    ),
    "detached": (
        "import io, sys\nsys.stdout = io.TextIOWrapper(sys.stdout.detach(), encoding='utf-8')\n"
        "print(5)",
        "5\n",
    ),
    "detached and forgotten": ("import sys\nb = sys.stdout.detach()\n_ = b.write(b'5\\n')", "5\n"),
    "the original stream": ("import sys\nprint(5, file=sys.__stdout__)", "5\n"),
    "bytes": ("import sys\n_ = sys.stdout.buffer.write(b'5\\n')", "5\n"),
    "half a character twice": (
        "import sys\nb = sys.stdout.buffer\n_ = b.write(b'\\xc3'), b.flush(), b.write(b'\\xa9')",
        "é",
    ),
    "bytes that are no text": ("import sys\n_ = sys.stdout.buffer.write(b'a\\xff')", "a\\xff"),
    "descriptor 1": ("import os\n_ = os.write(1, b'5\\n')", "5\n"),
    "descriptor 1, opened": ("w = open(1, 'w')\nprint(5, file=w)", "5\n"),
    "descriptor 1, opened in the place of the stream": (
        "import sys\nsys.stdout = open(1, 'w', encoding='utf-8', closefd=False)\nprint('é')\n7",
        "é\n7\n",
    ),
    "descriptor 1, opened and closed": ("with open(1, 'w') as w: print(5, file=w)", "5\n"),
    "descriptor 1, by its number": (
        "import os, sys\nw = os.fdopen(sys.stdout.fileno(), 'wb', 0)\n_ = w.write(b'5\\n')",
        "5\n",
    ),
    "redirected for a while": (
        "import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()): print(4)\nprint(5)",
        "5\n",
    ),
    "redirected to the other": (
        "import contextlib, sys\nwith contextlib.redirect_stdout(sys.stderr): print(4)\nprint(5)",
        "5\n",
    ),
    "logged": (
        "import logging, sys\nlogging.basicConfig(stream=sys.stdout, format='%(message)s')\n"
        "logging.warning(5)",
        "5\n",
    ),
    "closed, then printed": ("import sys\nprint(5)\nsys.stdout.close()", "5\n"),
    "as a context": ("import sys\nwith sys.stdout as out: print(5)", "5\n"),
    "of a thing that dies with the error": (
        "class A:\n    def __del__(self): print('gone')\ndef f():\n    a = A()\n    1 / 0\nf()",
        "gone\n",
    ),
    "a stream that cannot be flushed": (
        "import sys\nclass S:\n    def write(self, t): out.write(t.upper())\n"
        "    def flush(self): raise SystemExit\nout, sys.stdout = sys.stdout, S()\nprint('a')",
        "A\n",
    ),
}


POOL = "from concurrent.futures import ThreadPoolExecutor\np = ThreadPoolExecutor(2)\n"


def test_a_pool_without_shutdown_is_not_waited_for(full):
    with full.session() as session:
        assert session.run(POOL + "print(list(p.map(abs, [-1, 2])))").stdout == "[1, 2]\n"
        assert session.run("print(list(p.map(abs, [-3])))").stdout == "[3]\n"


def test_a_working_pool_is_waited_for(full):
    work = "import time\n_ = p.submit(lambda: (time.sleep(0.3), print(5)))"
    with full.session() as session:
        assert session.run(POOL + work).stdout == "5\n"


@pytest.mark.parametrize(("code", "printed"), IN_A_BLOCK.values(), ids=IN_A_BLOCK)
@pytest.mark.parametrize("tier", ["full", "confined"])
def test_the_output_of_a_block_is_returned_with_it(tier, code, printed, request):
    with request.getfixturevalue(tier).session() as session:
        assert session.run(code).stdout == printed
        assert session.run("print('next')").stdout == "next\n"


BREAKS = {
    "closes it": "sys.stdout.close()",
    "closes its buffer": "sys.stdout.buffer.close()",
    "closes its raw end": "sys.stdout.buffer.raw.close()",
    "detaches it": "sys.stdout.detach()",
    "detaches its buffer": "sys.stdout.buffer.detach()",
    "closes descriptor 1": "import os\nos.close(1)",
    "puts another file there": "import os\nos.dup2(os.open('f', os.O_CREAT | os.O_RDWR), 1)",
    "closes every descriptor but its socket": "import os, stat\nfor n in range(64):\n"
    "    try: os.close(n) if not stat.S_ISSOCK(os.fstat(n).st_mode) else None\n"
    "    except OSError: pass",
    "replaces a method": "sys.stdout.write = None",
    "removes it": "del sys.stdout, sys.stderr",
    "makes it None": "sys.stdout = sys.stderr = sys.__stdout__ = None",
    "puts a number there": "sys.stdout = 5",
}


@pytest.mark.parametrize("code", BREAKS.values(), ids=BREAKS)
def test_a_block_that_breaks_the_stream_does_not_affect_the_next(full, code):
    with full.session() as session:
        session.run(f"import sys\n{code}\nx = 1")
        execution = session.run("import os\nprint(x, flush=True)\n_ = os.write(1, b'2')")
        assert (execution.outcome, execution.stdout) == ("ok", "1\n2")
        assert session.run("print(3, file=sys.stderr)").stderr == "3\n"


def test_the_streams_have_the_usual_attributes(full):
    code = "import io, sys\nprint([(s.fileno() == n, s.isatty(), s.encoding, s.name, s.mode, "
    code += "s.writable(), s.readable(), s.line_buffering, isinstance(s, io.TextIOWrapper)) "
    code += "for n, s in ((1, sys.stdout), (2, sys.stderr))], sys.stdout is sys.__stdout__)"
    with full.session() as session:
        assert session.run(code).stdout == (
            "[(True, False, 'utf-8', '<stdout>', 'w', True, False, False, True), "
            "(False, False, 'utf-8', '<stderr>', 'w', True, False, False, True)] True\n"
        )


def test_standard_error_has_its_own_descriptor(full):
    code = "import os, sys\n_ = os.write(sys.stderr.fileno(), b'a\\n')"
    with full.session() as session:
        assert session.run(code).stderr == "a\n"
        assert session.run("print('b', file=sys.stderr)").stderr == "b\n"


@pytest.mark.parametrize(
    "code", ["import os\n_ = os.write(2, b'a\\n')", "with open(2, 'w') as w: print('a', file=w)"]
)
def test_output_to_descriptor_2_is_standard_error(full, code):
    with full.session() as session:
        assert session.run(code).stderr == "a\n"
        assert session.run(code).stderr == "a\n"


def test_output_of_c_libraries_to_the_descriptors_is_dropped(full):
    code = "import ctypes, os\nlibc = ctypes.CDLL(None)\n"
    code += "_ = [libc.dprintf(n, b'0x7f00 at 12:01\\n') for n in (1, 2)]"
    with full.session() as session:
        execution = session.run(code)
        assert (execution.outcome, execution.stdout, execution.stderr) == ("ok", "", "")


def test_a_redirected_descriptor_stays_redirected(full):
    code = "import os\nf = os.open('f', os.O_CREAT | os.O_RDWR)\n_ = os.dup2(f, 1)\n"
    code += "_ = os.write(1, b'in the file')\nprint(open('f').read())"
    with full.session() as session:
        assert session.run(code).stdout == "in the file\n"


def test_a_handler_of_an_earlier_block_still_prints(full):
    with full.session() as session:
        session.run("import logging\nlogging.basicConfig(format='%(message)s')")
        assert session.run("logging.warning('late')").stderr == "late\n"


def test_a_wrapper_of_an_earlier_block_still_prints(full):
    with full.session() as session:
        session.run("import io, sys\nw = io.TextIOWrapper(sys.stdout.buffer)")
        assert session.run("print(5, file=w)").stdout == "5\n"


@pytest.mark.parametrize(
    "code",
    [
        "print('a' * 100_000_000)",  # in a session of 256 MB: the text is not copied
        "for _ in range(300): print('é' * 100_000)",
        "import sys\nfor _ in range(300): _ = sys.stdout.buffer.write(bytes(1_000_000))",
    ],
)
def test_output_beyond_the_limit_takes_no_memory(full, code):
    with full.session() as session:
        execution = session.run(code)
        assert execution.outcome == "ok"
        assert " characters were cut " in execution.stdout
        assert len(execution.stdout) < 2_100


def test_output_to_descriptor_1_is_limited_by_the_disk(full):
    code = "w = open(1, 'wb', 0)\nwhile True: w.write(bytes(1_000_000))"
    with full.session() as session:
        execution = session.run(code)
        assert execution.error.startswith("OSError: ")
        assert " characters were cut " in execution.stdout


def test_the_end_of_a_long_output_is_kept(full):
    with full.session() as session:
        execution = session.run("for i in range(100_000): print(i)\nprint('RESULT 7')")
        assert execution.stdout.startswith("0\n1\n2\n")
        assert execution.stdout.endswith("\n99999\nRESULT 7\n")
        whole = sum(len(f"{i}\n") for i in range(100_000)) + len("RESULT 7\n")
        assert f"… {whole - 2_000:,} characters were cut …\n" in execution.stdout


def test_the_end_of_a_long_message_is_kept(full):
    with full.session() as session:
        error = session.run("raise ValueError('a' * 5_000 + ' in column 7')").error
        assert error.startswith("ValueError: aaaa")
        assert error.endswith("aaa in column 7, line 1")
        assert " characters were cut " in error
