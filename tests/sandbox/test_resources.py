"""What a block may use up: memory, disk, threads, output; each limit has its own answer."""

import pytest
from codedance.sandbox import Outcome


def run(sandbox, code):
    with sandbox.session() as session:
        return session.run(code)


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("x = [0] * 10**9", id="47 a list bomb"),
        pytest.param("x = []\nwhile True: x.append('a' * 10**6)", id="47 a slow list bomb"),
        pytest.param("import numpy as np\nx = np.ones(10**11)", id="48 a huge array"),
        pytest.param(
            "import numpy as np\nx = [np.ones(10**6) for _ in range(10**4)]", id="48 many"
        ),
        pytest.param(
            "from PIL import Image\nImage.new('RGB', (30_000, 30_000))", id="57 a picture"
        ),
        pytest.param(
            "import cv2, numpy as np\ncv2.resize(np.ones((9, 9)), (10**5, 10**5))", id="cv2"
        ),
    ],
)
def test_too_much_memory_is_the_outcome_memory(walled, code):
    execution = run(walled, code)
    assert execution.outcome is Outcome.MEMORY, execution
    assert ", line " in execution.error


def test_the_message_names_the_memory_that_there_is(walled):
    assert run(walled, "x = 1\ny = [0] * 10**9").error == "MemoryError: more than 256 MB, line 2"


@pytest.mark.parametrize(
    "code",
    [
        "x = []\nwhile True: x.append(object())",
        "x = []\ntry:\n    while True: x.append(object())\nexcept MemoryError: pass\n"
        "y = [0] * 10**7",
    ],
)
def test_memory_filled_to_the_brim_is_the_outcome_memory(walled, code):
    execution = run(walled, code)
    assert execution.outcome is Outcome.MEMORY
    assert execution.error.startswith("MemoryError: more than 256 MB")


@pytest.mark.parametrize("flags", ["MAP_PRIVATE", "MAP_SHARED"])
def test_an_mmap_bomb_is_refused(walled, flags):
    """49: private mappings count as memory; shared ones, which would not, cannot be made."""
    code = f"import mmap\nmaps = [mmap.mmap(-1, 1 << 26, flags=mmap.{flags} | mmap.MAP_ANONYMOUS)"
    code += " for _ in range(100)]"
    assert run(walled, code).error.startswith("OSError: [Errno 12]")


def test_a_block_may_survive_its_own_memory_error(walled):
    code = "try: x = [0] * 10**9\nexcept MemoryError: print('too big')"
    assert run(walled, code).stdout == "too big\n"


def test_a_full_disk_is_an_error(full):
    code = "with open('big', 'wb') as f:\n    for _ in range(100): f.write(bytes(1 << 20))"
    assert run(full, code).error.startswith("OSError: [Errno 28]") or (
        "File too large" in run(full, code).error
    )


def test_many_files_together_cannot_fill_more_than_the_disk(full):
    code = (
        "import os\nfor i in range(100):\n    with open(str(i), 'wb') as f: f.write(bytes(1 << 20))"
    )
    assert run(full, code).error.startswith("OSError: [Errno 28] No space left on device")


def test_inodes_run_out(full):
    execution = run(full, "for i in range(10**6): open(str(i), 'w').close()")
    assert execution.error.startswith("OSError: [Errno 28]")


def test_one_file_is_bounded_in_every_tier(walled):
    code = "with open('big', 'wb') as f:\n    for _ in range(100): f.write(bytes(1 << 20))"
    assert run(walled, code).outcome is Outcome.ERROR


def test_threads_run_out(walled):
    code = "import threading, time\nfor _ in range(50):\n"
    code += "    threading.Thread(target=time.sleep, args=(9,), daemon=True).start()"
    assert run(walled, code).error.startswith("RuntimeError: can't start new thread")


def test_a_few_threads_are_welcome(full):
    code = "from concurrent.futures import ThreadPoolExecutor\n"
    code += "with ThreadPoolExecutor(4) as pool: print(sum(pool.map(len, ['a'] * 100)))"
    assert run(full, code).stdout == "100\n"


def test_one_sessions_threads_do_not_count_for_another(full):
    code = "import threading, time\nfor _ in range(5):\n"
    code += "    threading.Thread(target=time.sleep, args=(9,), daemon=True).start()"
    with full.session() as one, full.session() as two:
        assert one.run(code).is_ok
        assert two.run(code).is_ok


@pytest.mark.parametrize("call", ["os.open('f', os.O_CREAT)", "os.pipe()", "os.dup(0)"])
def test_descriptors_run_out(walled, call):
    """51 and 52."""
    execution = run(walled, f"import os\nopened = [{call} for _ in range(1000)]")
    assert execution.error.startswith("OSError: [Errno 24] Too many open files")


def test_a_gigabyte_of_output_is_cut_and_ok(walled):
    """53."""
    execution = run(walled, "for _ in range(1000): print('a' * 10**6)")
    assert execution.outcome is Outcome.OK
    assert len(execution.stdout) < 2_100


def test_raw_writes_to_the_standard_descriptors_reach_nobody_else(walled):
    """54: they are /dev/null; what Python code writes there comes back within the limit."""
    execution = run(walled, "import os\nfor fd in (1, 2): os.write(fd, b'x' * 100)\nprint('ok')")
    assert (execution.stdout, execution.stderr) == ("x" * 100 + "ok\n", "x" * 100)
    flood = "import os\nfor _ in range(100): _ = os.write(1, b'x' * 10_000)"
    assert len(run(walled, flood).stdout) < 2_100


def test_a_huge_repr_is_cut(walled):
    """55."""
    assert len(run(walled, "list(range(10**5))").stdout) < 2_100


def test_a_decompression_bomb_does_not_get_through(walled):
    """56: 100 MB of zeros, a picture of 2.5 gigapixels."""
    code = "import zlib, struct, io\nfrom PIL import Image\n"
    code += "def chunk(k, d): return struct.pack('>I', len(d)) + k + d"
    code += " + struct.pack('>I', zlib.crc32(k + d))\n"
    code += "head = chunk(b'IHDR', struct.pack('>IIBBBBB', 50_000, 50_000, 8, 0, 0, 0, 0))\n"
    code += "body = chunk(b'IDAT', zlib.compress(bytes(10**7)))\n"
    code += "Image.open(io.BytesIO(b'\\x89PNG\\r\\n\\x1a\\n' + head + body)).load()"
    assert run(walled, code).outcome in (Outcome.ERROR, Outcome.MEMORY)


def test_deep_recursion_is_an_error(walled):
    """58."""
    execution = run(walled, "def f(n): return f(n + 1)\nf(0)")
    assert execution.error.startswith("RecursionError")


def test_recursion_without_a_limit_ends_its_own_session_only(walled):
    code = "import sys\nsys.setrecursionlimit(10**9)\ndef f(_): return sorted([1], key=f)\nf(0)"
    with walled.session() as session:
        session.run("x = 3")
        assert session.run(code).outcome in (Outcome.KILLED, Outcome.MEMORY, Outcome.TIMEOUT)
        assert session.run("x").stdout == "3\n"


def test_pictures_over_the_number_are_left_out_with_a_note(walled):
    code = "from PIL import Image\nfor _ in range(6): display(Image.new('RGB', (2, 2)))"
    execution = run(walled, code)
    assert (execution.outcome, len(execution.images)) == (Outcome.OK, 4)
    assert execution.stderr.startswith("[2 more pictures were left out: at most 4 pictures")


def test_a_picture_over_the_pixels_is_left_out_with_a_note(walled):
    execution = run(walled, "from PIL import Image\nImage.new('L', (5_000, 5_000))")
    assert (execution.outcome, execution.images) == (Outcome.OK, ())
    assert "16777216 pixels" in execution.stderr
