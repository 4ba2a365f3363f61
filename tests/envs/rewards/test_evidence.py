import gc
import hashlib
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from codedance.envs import picture
from codedance.envs.episode import Episode
from codedance.envs.images.picture_memory import once_per_picture
from codedance.envs.picture import picture_array
from codedance.envs.rewards import evidence as module
from codedance.envs.rewards.evidence import (
    changed_pictures,
    record_evidence,
    secret_order,
    shuffled_picture,
)
from codedance.envs.rewards.terms import score_trajectory
from codedance.envs.types import Ending
from codedance.sandbox import Outcome, SandboxError, open_sandbox
from PIL import Image

from ..toys import InProcessSandbox, make_task, noise


@pytest.fixture(scope="module")
def isolated():
    with open_sandbox("local") as opened:
        yield opened


@pytest.fixture(autouse=True)
def order(monkeypatch):
    """Fix the order of the first replays, so that their number is known; may be changed."""
    orders = [("true", "shuffled", "turned")]

    def fixed(names):
        return [*orders[0], *(name for name in names if name not in orders[0])]

    monkeypatch.setattr(module, "secret_order", fixed)
    return orders


def played(sandbox, *blocks, task=None, seed=0):
    with Episode(task or make_task(), sandbox, max_turns=len(blocks) + 1, seed=seed) as episode:
        for block in blocks:
            episode.step(f"```python\n{block}\n```")
        episode.step("<answer>5</answer>")
        return episode.trajectory("test"), episode.images


def evidence(sandbox, *blocks, **settings):
    one, images = played(sandbox, *blocks, **settings)
    recorded = record_evidence(one, images, sandbox)
    assert recorded.turns[-1].has_evidence is None
    return [turn.has_evidence for turn in recorded.tool_turns]


@pytest.mark.parametrize(
    ("block", "has_evidence"),
    [
        ("print(input_image.getpixel((3, 3)))", True),
        ("display(input_image.crop((0, 0, 9, 9)))", True),
        ("import numpy as np\nprint((np.asarray(input_image)[..., 0] > 200).sum())", True),
        ("print(5)", False),
        ("# a comment", False),
        ("x = input_image.getpixel((0, 0))", False),
        ("print(input_image.size)", False),
        ("from PIL import Image\ndisplay(Image.new('RGB', (9, 9)))", False),
        ("1/0", False),
        ("print(input_image.getpixel((3, 3)))\n1/0", False),
    ],
)
def test_only_output_that_depends_on_the_image_is_evidence(sandbox, isolated, block, has_evidence):
    assert evidence(sandbox, block) == [has_evidence]
    assert evidence(isolated, block) == [has_evidence]


def test_an_image_that_is_kept_smaller_is_evidence(sandbox, monkeypatch):
    """The episode keeps at most 12.8 megapixels of an image; its replay shows all of them."""
    monkeypatch.setattr(picture, "DEFAULT_MAX_PIXELS", 5_000)
    show = "display(input_image.resize((120, 90)))"
    turn = played(sandbox, show)[0].turns[0]
    (kept,) = turn.execution.images
    assert kept.size == (81, 61)
    assert kept is turn.reply.images[0]
    assert evidence(sandbox, show) == [True]
    assert evidence(sandbox, "display(input_image.resize((120, 90)).point(lambda _: 7))") == [False]


def test_repeated_output_is_not_evidence(sandbox):
    look = "print(input_image.getpixel((3, 3)))"
    assert evidence(sandbox, look, look, "print(input_image.getpixel((4, 4)))") == [
        True,
        False,
        True,
    ]


def test_an_image_with_a_new_caption_is_not_new_evidence(sandbox):
    crop = "display(input_image.crop((0, 0, 9, 9)))"
    assert evidence(sandbox, f"print('a')\n{crop}", f"print('b')\n{crop}") == [True, False]


def test_work_of_earlier_blocks_counts_in_the_block_that_shows_it(sandbox, isolated):
    blocks = ("p = input_image.getpixel((3, 3))", "1/0", "q = sum(p)", "print(q)")
    for one in (sandbox, isolated):
        assert evidence(one, *blocks) == [False, False, False, True]


def test_a_block_that_fails_on_the_shuffled_image_depends_on_it(sandbox):
    pixel = noise().getpixel((0, 0))
    assert evidence(sandbox, f"assert input_image.getpixel((0, 0)) == {pixel}\nprint('ok')") == [
        True
    ]


def test_output_that_a_replay_does_not_reproduce_is_not_evidence(sandbox):
    assert evidence(sandbox, "import os\nprint(os.urandom(8), input_image.getpixel((3, 3)))") == [
        False
    ]


def test_seeded_randomness_is_reproduced(sandbox):
    block = "print(seeded(), input_image.getpixel((3, 3)))"
    assert evidence(sandbox, block, seed=7) == [True]


def test_a_task_that_needs_no_image_requires_only_new_output(sandbox):
    task = make_task(needs_picture=False)
    assert evidence(sandbox, "print(5)", "print(5)", "x = 1", "1/0", task=task) == [
        True,
        False,
        False,
        False,
    ]


def test_an_image_of_one_colour_still_yields_evidence(sandbox):
    task = make_task(images=(Image.new("RGB", (1, 1), (9, 9, 9)),))
    assert evidence(sandbox, "print(input_image.getpixel((0, 0)))", task=task) == [True]


def test_shuffling_keeps_the_values_and_the_size_and_is_the_same_each_time():
    whole = noise()
    shuffled = shuffled_picture(whole)
    assert shuffled.size == whole.size
    assert picture_array(shuffled).tobytes() == picture_array(shuffled_picture(whole)).tobytes()
    values, mixed = picture_array(whole).ravel(), picture_array(shuffled).ravel()
    assert (np.sort(values) == np.sort(mixed)).all()
    assert (values != mixed).mean() > 0.9


def smooth(width=24, height=16):
    """Return an image that is no noise."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([9 * x, 12 * y, 5 * (x + y)], axis=-1).astype(np.uint8))


NOISY = (
    "import numpy as np\np = np.asarray(input_image).astype(int)\n"
    "noisy = np.abs(np.diff(p, axis=1)).mean() > 40\n"
)


@pytest.mark.parametrize(
    ("block", "has_evidence"),
    [
        ("if noisy:\n    raise ValueError\nprint('looked')", False),
        ("print('noise' if noisy else 'looked')", False),
        ("if not noisy:\n    print('looked')", False),
        ("if not noisy:\n    print(p[3, 3])", True),
        ("assert not noisy\nassert p[3, 3].sum() == 93\nprint('looked')", True),
    ],
)
def test_that_an_image_is_no_noise_is_not_evidence(sandbox, block, has_evidence):
    task = make_task(images=(smooth(),))
    assert evidence(sandbox, NOISY + block, task=task) == [has_evidence]


def test_output_that_one_changed_image_keeps_is_compared_with_the_others(sandbox):
    """The number of objects is the same in an image that is turned and has other colours."""
    pixels = np.zeros((16, 24, 3), np.uint8)
    for column in (2, 8, 14, 20):
        pixels[4:6, column : column + 2] = (200, 10, 60)
    task = make_task(images=(Image.fromarray(pixels),))
    count = (
        "import numpy as np\np = np.asarray(input_image).astype(int).sum(axis=2)\n"
        "lit = (p > 0).any(axis=0).astype(int)\nprint((np.diff(lit) == 1).sum())"
    )
    opened = sandbox.opened
    assert evidence(sandbox, count, task=task) == [True]
    assert sandbox.opened - opened == 1 + 4


class _CountedReplays:
    """Replays of code that counts its runs, and prints what it printed at first in some of them."""

    def __init__(self, same):
        self._runs = itertools.count(1)
        self._same = same

    def outputs(self, name):
        return (frozenset({"looked" if next(self._runs) in self._same else "no"}),)


def test_code_that_counts_its_runs_cannot_know_which_image_it_sees(monkeypatch):
    """The best of its guesses is right in a third of the orders; before, it always was."""
    given = (frozenset({"looked"}),)
    shares = []
    for size in range(6):
        for same in itertools.combinations(range(1, 6), size):
            passed = 0
            for order in itertools.permutations(("true", "shuffled", "turned")):
                monkeypatch.setattr(module, "secret_order", lambda _, order=order: order)
                passed += module._dependent(_CountedReplays(same), given) == [True]
            shares.append(passed / 6)
    assert max(shares) == pytest.approx(1 / 3)


def test_the_order_of_replays_is_secret_and_does_not_decide(sandbox, order):
    names = ["true", "shuffled", "turned"]
    drawn = [tuple(secret_order(names)) for _ in range(200)]
    assert set(drawn) == set(itertools.permutations(names))
    blocks = (LOOK, "print(5)", "x = 1", "print(seeded())", "1/0", f"print(seeded())\n{LOOK}")
    found = []
    for each in itertools.permutations(names):
        order[0] = each
        found.append(evidence(sandbox, *blocks))
    assert found == [[True, False, False, False, False, True]] * 6


def test_changed_images_have_the_size_and_other_pixels():
    for image in (smooth(), noise(7, 5), Image.new("RGB", (1, 1), (9, 8, 7))):
        changed = changed_pictures(image)
        assert {one.size for one in changed} == {image.size}
        assert any(one.tobytes() != image.tobytes() for one in changed)
        assert [one.tobytes() for one in changed] == [
            one.tobytes() for one in changed_pictures(image)
        ]


def test_a_cache_saves_the_replays(sandbox):
    one, images = played(sandbox, "print(input_image.getpixel((3, 3)))")
    cache = {}
    record_evidence(one, images, sandbox, cache)
    opened = sandbox.opened
    again = record_evidence(one, images, sandbox, cache)
    assert sandbox.opened == opened
    assert again.turns[0].has_evidence is True


def test_nothing_is_replayed_without_candidates_for_evidence(sandbox):
    one, images = played(sandbox, "x = 1", "1/0")
    opened = sandbox.opened
    record_evidence(one, images, sandbox)
    assert sandbox.opened == opened


def test_a_sandbox_that_fails_twice_loses_the_trajectory(sandbox):
    one, images = played(sandbox, "print(input_image.getpixel((3, 3)))")
    sandbox.is_down = True
    lost = record_evidence(one, images, sandbox)
    assert (lost.ending, lost.accuracy, lost.is_valid) == (Ending.INFRASTRUCTURE, None, False)


class _FailsOnce(InProcessSandbox):
    has_failed = False

    def session(self, images=(), *, seed=0):
        if not self.has_failed:
            self.has_failed = True
            raise SandboxError("once")
        return super().session(images, seed=seed)


def test_a_sandbox_that_fails_once_is_retried(sandbox):
    one, images = played(sandbox, "print(input_image.getpixel((3, 3)))")
    assert record_evidence(one, images, _FailsOnce()).turns[0].has_evidence is True


def test_a_replay_that_overruns_is_neither_evidence_nor_infrastructure(sandbox):
    class Slow(InProcessSandbox):
        def session(self, images=(), *, seed=0):
            opened = super().session(images, seed=seed)
            run = opened.run
            opened.run = lambda code: _timed_out(run(code))
            return opened

    one, images = played(sandbox, "print(input_image.getpixel((3, 3)))")
    recorded = record_evidence(one, images, Slow())
    assert recorded.ending is Ending.ANSWERED
    assert recorded.turns[0].has_evidence is False


def _timed_out(execution):
    return type(execution)(Outcome.TIMEOUT, stdout=execution.stdout, error="too slow")


LOOK = "print(input_image.getpixel((3, 3)))"


def cost(sandbox, seeds, *blocks):
    """Play siblings that differ by their seed; return their evidence and the number of replays."""
    siblings = [played(sandbox, *blocks, seed=seed) for seed in seeds]
    opened, cache = sandbox.opened, {}
    found = [
        [turn.has_evidence for turn in record_evidence(one, images, sandbox, cache).tool_turns]
        for one, images in siblings
    ]
    return found, sandbox.opened - opened


def test_siblings_that_differ_only_by_their_seed_share_three_replays(sandbox):
    assert cost(sandbox, range(8), LOOK, "x = 1", LOOK) == ([[True, False, False]] * 8, 3)


def test_siblings_share_replays_if_a_random_draw_is_not_shown(sandbox):
    assert cost(sandbox, range(5), f"seeded()\n{LOOK}") == ([[True]] * 5, 3)


def test_siblings_share_replays_if_their_output_is_random(sandbox):
    block = "print(seeded(), input_image.getpixel((3, 3)))"
    assert cost(sandbox, range(4), block) == ([[True]] * 4, 3)


def test_a_random_constant_is_not_evidence_and_needs_no_other_replay(sandbox):
    found, replays = cost(sandbox, range(4), "import os\nprint(os.urandom(4))")
    assert (found, replays) == ([[False]] * 4, 1)


def test_equal_random_numbers_on_both_images_are_not_evidence(sandbox):
    assert cost(sandbox, range(4), "print(seeded())")[0] == [[False]] * 4


def test_code_draws_the_same_numbers_in_every_episode_and_replay(sandbox):
    """Otherwise it could tell a replay from its first run, or find the task's id by its seed."""
    seen = []

    class Watched(InProcessSandbox):
        def session(self, images=(), *, seed=0):
            seen.append(seed)
            return super().session(images, seed=seed)

    watched = Watched()
    for seed in (3, 4):
        record_evidence(*played(watched, LOOK, seed=seed), watched)
    assert seen == [0] * 8


def test_another_image_or_another_block_needs_another_replay(sandbox):
    cache = {}
    for task in (make_task(), make_task(images=(noise(seed=1),))):
        for block in (LOOK, LOOK + " "):
            record_evidence(*played(sandbox, block, task=task), sandbox, cache)
    assert len(cache) == 4 * 3


def test_blocks_with_different_boundaries_are_different(sandbox):
    cache = {}
    record_evidence(*played(sandbox, LOOK, "x = 12"), sandbox, cache)
    record_evidence(*played(sandbox, LOOK + "\nx = 1", "2"), sandbox, cache)
    assert len(cache) == 2 * 3


def test_siblings_in_threads_wait_for_one_replay(sandbox):
    siblings = [played(sandbox, LOOK, seed=seed) for seed in range(8)]
    opened, cache = sandbox.opened, {}
    together = threading.Barrier(8)

    def look(sibling):
        together.wait(30)
        return record_evidence(*sibling, sandbox, cache).turns[0].has_evidence

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(look, siblings)) == [True] * 8
    assert sandbox.opened - opened == 3


def test_a_replay_lost_by_the_sandbox_is_retried_by_the_next_sibling(sandbox):
    one, two = (played(sandbox, LOOK, seed=seed) for seed in range(2))
    cache = {}
    sandbox.is_down = True
    assert not record_evidence(*one, sandbox, cache).is_valid
    sandbox.is_down = False
    assert record_evidence(*two, sandbox, cache).turns[0].has_evidence is True


def test_a_real_sandbox_shares_replays_if_modules_draw_random_numbers(isolated):
    calls = (
        "import random, tempfile\nprint(random.random(), tempfile.mktemp())",
        "import numpy as np\nprint(np.asarray(input_image)[3, 3], np.random.rand())",
        LOOK,
    )
    cache = {}
    for seed in (3, 4):
        one, images = played(isolated, *calls, seed=seed)
        found = record_evidence(one, images, isolated, cache)
        assert [turn.has_evidence for turn in found.tool_turns] == [False, True, True]
    assert len(cache) == 3


@pytest.fixture
def hashed(monkeypatch):
    """Return the sizes of the images that were hashed, in order."""
    sizes = []

    def sha256(head):
        sizes.append(tuple(map(int, head.split())))
        return hashlib.sha256(head)

    monkeypatch.setattr(picture, "hashlib", SimpleNamespace(sha256=sha256))
    return sizes


def test_each_image_of_a_group_is_hashed_once(hashed, sandbox):
    task = make_task(images=(noise(40, 30), noise(20, 50, seed=1)))
    show = "crop = input_images[1].crop((0, 0, 7, 9))\ndisplay(crop)"
    siblings = [played(sandbox, show, LOOK, task=task, seed=seed)[0] for seed in range(4)]
    cache = {}
    for _ in range(3):
        for one in siblings:
            recorded = record_evidence(one, one.images, sandbox, cache)
            score_trajectory(recorded, group_accuracy=0.5)
    assert hashed.count((40, 30)) == 1
    assert hashed.count((20, 50)) == 1
    # A crop is hashed for each sibling and for the three replays.
    assert hashed.count((7, 9)) == 4 + 3


def test_a_digest_is_dropped_with_its_image():
    made = []

    @once_per_picture
    def size(image):
        made.append(image.size)
        return image.size

    one, equal = noise(), noise()
    assert size(one) == size(one) == size(equal)
    assert len(made) == 2  # equal pixels, two images
    known = size.__closure__
    held = next(cell.cell_contents for cell in known if isinstance(cell.cell_contents, dict))
    assert len(held) == 2
    del one, equal
    gc.collect()
    assert held == {}
