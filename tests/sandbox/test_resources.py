"""Limits of a block: memory, disk, threads, output; each has its own message."""

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
def test_too_much_memory_has_the_outcome_memory(isolated, code):
    execution = run(isolated, code)
    assert execution.outcome is Outcome.MEMORY, execution
    assert ", line " in execution.error


def test_the_message_names_the_memory_limit(isolated):
    assert run(isolated, "x = 1\ny = [0] * 10**9").error == "MemoryError: more than 256 MB, line 2"


FILL = """x = []
try:
    while True: x.append(bytes(1 << 20))
except MemoryError: pass
"""


@pytest.mark.parametrize(
    "code",
    [
        f"{FILL}while True: x.append(object())",
        f"{FILL}try:\n    while True: x.append(object())\nexcept MemoryError: pass\n"
        "y = [0] * 10**7",
    ],
)
def test_completely_filled_memory_has_the_outcome_memory(isolated, code):
    execution = run(isolated, code)
    assert execution.outcome is Outcome.MEMORY
    assert execution.error.startswith("MemoryError: more than 256 MB")


@pytest.mark.parametrize("flags", ["MAP_PRIVATE", "MAP_SHARED"])
def test_an_mmap_bomb_is_refused(isolated, flags):
    """49: private mappings count as memory; shared ones, which would not, cannot be made."""
    code = f"import mmap\nmaps = [mmap.mmap(-1, 1 << 26, flags=mmap.{flags} | mmap.MAP_ANONYMOUS)"
    code += " for _ in range(100)]"
    assert run(isolated, code).error.startswith("OSError: [Errno 12]")


def test_a_block_may_survive_its_own_memory_error(isolated):
    code = "try: x = [0] * 10**9\nexcept MemoryError: print('too big')"
    assert run(isolated, code).stdout == "too big\n"


def test_a_full_disk_is_an_error(full):
    code = "with open('big', 'wb') as f:\n    for _ in range(100): f.write(bytes(1 << 20))"
    assert run(full, code).error.startswith("OSError: [Errno 28]") or (
        "File too large" in run(full, code).error
    )


def test_many_files_together_cannot_exceed_the_disk(full):
    code = (
        "import os\nfor i in range(100):\n    with open(str(i), 'wb') as f: f.write(bytes(1 << 20))"
    )
    assert run(full, code).error.startswith("OSError: [Errno 28] No space left on device")


def test_inodes_are_limited(full):
    execution = run(full, "for i in range(10**6): open(str(i), 'w').close()")
    assert execution.error.startswith("OSError: [Errno 28]")


def test_one_file_is_limited_at_every_level(isolated):
    code = "with open('big', 'wb') as f:\n    for _ in range(100): f.write(bytes(1 << 20))"
    assert run(isolated, code).outcome is Outcome.ERROR


def test_threads_are_limited(isolated):
    code = "import threading, time\nfor _ in range(50):\n"
    code += "    threading.Thread(target=time.sleep, args=(9,), daemon=True).start()"
    assert run(isolated, code).error.startswith("RuntimeError: can't start new thread")


def test_a_few_threads_are_allowed(full):
    code = "from concurrent.futures import ThreadPoolExecutor\n"
    code += "with ThreadPoolExecutor(4) as pool: print(sum(pool.map(len, ['a'] * 100)))"
    assert run(full, code).stdout == "100\n"


def test_the_threads_of_one_session_do_not_count_for_another(full):
    code = "import threading, time\nfor _ in range(5):\n"
    code += "    threading.Thread(target=time.sleep, args=(9,), daemon=True).start()"
    with full.session() as one, full.session() as two:
        assert one.run(code).is_ok
        assert two.run(code).is_ok


@pytest.mark.parametrize("call", ["os.open('f', os.O_CREAT)", "os.pipe()", "os.dup(0)"])
def test_descriptors_are_limited(isolated, call):
    """51 and 52."""
    execution = run(isolated, f"import os\nopened = [{call} for _ in range(1000)]")
    assert execution.error.startswith("OSError: [Errno 24] Too many open files")


def test_a_gigabyte_of_output_is_cut_and_ok(isolated):
    """53."""
    execution = run(isolated, "for _ in range(1000): print('a' * 10**6)")
    assert execution.outcome is Outcome.OK
    assert len(execution.stdout) < 2_100


def test_raw_writes_to_the_standard_descriptors_reach_no_other_process(isolated):
    """54: they are /dev/null; output of Python code is returned within the limit."""
    execution = run(isolated, "import os\nfor fd in (1, 2): os.write(fd, b'x' * 100)\nprint('ok')")
    assert (execution.stdout, execution.stderr) == ("x" * 100 + "ok\n", "x" * 100)
    flood = "import os\nfor _ in range(100): _ = os.write(1, b'x' * 10_000)"
    assert len(run(isolated, flood).stdout) < 2_100


def test_a_huge_repr_is_cut(isolated):
    """55."""
    assert len(run(isolated, "list(range(10**5))").stdout) < 2_100


def test_a_decompression_bomb_is_stopped(isolated):
    """56: 100 MB of zeros, an image of 2.5 gigapixels."""
    code = "import zlib, struct, io\nfrom PIL import Image\n"
    code += "def chunk(k, d): return struct.pack('>I', len(d)) + k + d"
    code += " + struct.pack('>I', zlib.crc32(k + d))\n"
    code += "head = chunk(b'IHDR', struct.pack('>IIBBBBB', 50_000, 50_000, 8, 0, 0, 0, 0))\n"
    code += "body = chunk(b'IDAT', zlib.compress(bytes(10**7)))\n"
    code += "Image.open(io.BytesIO(b'\\x89PNG\\r\\n\\x1a\\n' + head + body)).load()"
    assert run(isolated, code).outcome in (Outcome.ERROR, Outcome.MEMORY)


def test_deep_recursion_is_an_error(isolated):
    """58."""
    execution = run(isolated, "def f(n): return f(n + 1)\nf(0)")
    assert execution.error.startswith("RecursionError")


def test_unlimited_recursion_ends_only_its_own_session(isolated):
    code = "import sys\nsys.setrecursionlimit(10**9)\ndef f(_): return sorted([1], key=f)\nf(0)"
    with isolated.session() as session:
        session.run("x = 3")
        assert session.run(code).outcome in (Outcome.KILLED, Outcome.MEMORY, Outcome.TIMEOUT)
        assert session.run("x").stdout == "3\n"


def test_images_over_the_maximum_number_are_omitted_with_a_note(isolated):
    code = "from PIL import Image\nfor _ in range(6): display(Image.new('RGB', (2, 2)))"
    execution = run(isolated, code)
    assert (execution.outcome, len(execution.images)) == (Outcome.OK, 4)
    assert execution.stderr.startswith("[2 more pictures were left out: at most 4 pictures")


def test_an_image_over_the_maximum_size_is_omitted_with_a_note(isolated):
    execution = run(isolated, "from PIL import Image\nImage.new('L', (5_000, 5_000))")
    assert (execution.outcome, execution.images) == (Outcome.OK, ())
    assert "16777216 pixels" in execution.stderr
