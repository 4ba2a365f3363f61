import gc
import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from codedance.envs import picture
from codedance.envs.episode import Episode
from codedance.envs.images.picture_memory import once_per_picture
from codedance.envs.picture import picture_array
from codedance.envs.rewards.evidence import record_evidence, shuffled_picture
from codedance.envs.rewards.terms import score_trajectory
from codedance.envs.types import Ending
from codedance.sandbox import Outcome, SandboxError, open_sandbox
from PIL import Image

from .toys import InProcessSandbox, make_task, noise


@pytest.fixture(scope="module")
def walled():
    with open_sandbox("local") as opened:
        yield opened


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
def test_only_output_that_depends_on_the_picture_is_evidence(sandbox, walled, block, has_evidence):
    assert evidence(sandbox, block) == [has_evidence]
    assert evidence(walled, block) == [has_evidence]


def test_output_that_was_given_before_is_no_evidence(sandbox):
    look = "print(input_image.getpixel((3, 3)))"
    assert evidence(sandbox, look, look, "print(input_image.getpixel((4, 4)))") == [
        True,
        False,
        True,
    ]


def test_a_picture_under_a_new_caption_is_no_new_evidence(sandbox):
    crop = "display(input_image.crop((0, 0, 9, 9)))"
    assert evidence(sandbox, f"print('a')\n{crop}", f"print('b')\n{crop}") == [True, False]


def test_what_earlier_blocks_prepared_counts_where_it_is_shown(sandbox, walled):
    blocks = ("p = input_image.getpixel((3, 3))", "1/0", "q = sum(p)", "print(q)")
    for one in (sandbox, walled):
        assert evidence(one, *blocks) == [False, False, False, True]


def test_a_block_that_fails_on_the_shuffled_picture_depends_on_it(sandbox):
    pixel = noise().getpixel((0, 0))
    assert evidence(sandbox, f"assert input_image.getpixel((0, 0)) == {pixel}\nprint('ok')") == [
        True
    ]


def test_output_that_a_replay_does_not_reproduce_is_no_evidence(sandbox):
    assert evidence(sandbox, "import os\nprint(os.urandom(8), input_image.getpixel((3, 3)))") == [
        False
    ]


def test_seeded_randomness_is_reproduced(sandbox):
    block = "print(seeded(), input_image.getpixel((3, 3)))"
    assert evidence(sandbox, block, seed=7) == [True]


def test_a_task_that_needs_no_picture_asks_only_for_new_output(sandbox):
    task = make_task(needs_picture=False)
    assert evidence(sandbox, "print(5)", "print(5)", "x = 1", "1/0", task=task) == [
        True,
        False,
        False,
        False,
    ]


def test_a_picture_of_one_colour_still_gives_evidence(sandbox):
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


def test_a_cache_saves_the_replays(sandbox):
    one, images = played(sandbox, "print(input_image.getpixel((3, 3)))")
    cache = {}
    record_evidence(one, images, sandbox, cache)
    opened = sandbox.opened
    again = record_evidence(one, images, sandbox, cache)
    assert sandbox.opened == opened
    assert again.turns[0].has_evidence is True


def test_nothing_is_replayed_where_nothing_can_be_found(sandbox):
    one, images = played(sandbox, "x = 1", "1/0")
    opened = sandbox.opened
    record_evidence(one, images, sandbox)
    assert sandbox.opened == opened


def test_a_sandbox_that_fails_twice_makes_the_trajectory_a_lost_one(sandbox):
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


def test_a_sandbox_that_fails_once_is_asked_again(sandbox):
    one, images = played(sandbox, "print(input_image.getpixel((3, 3)))")
    assert record_evidence(one, images, _FailsOnce()).turns[0].has_evidence is True


def test_a_replay_that_overruns_is_no_evidence_and_no_infrastructure(sandbox):
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
    """Play siblings that differ by their seed; give their evidence and the replays it took."""
    siblings = [played(sandbox, *blocks, seed=seed) for seed in seeds]
    opened, cache = sandbox.opened, {}
    found = [
        [turn.has_evidence for turn in record_evidence(one, images, sandbox, cache).tool_turns]
        for one, images in siblings
    ]
    return found, sandbox.opened - opened


def test_siblings_that_differ_by_their_seed_alone_share_two_replays(sandbox):
    assert cost(sandbox, range(8), LOOK, "x = 1", LOOK) == ([[True, False, False]] * 8, 2)


def test_a_draw_that_shows_nowhere_keeps_siblings_from_nothing(sandbox):
    assert cost(sandbox, range(5), f"seeded()\n{LOOK}") == ([[True]] * 5, 2)


def test_siblings_whose_output_was_drawn_are_replayed_under_their_own_seeds(sandbox):
    """One shared replay shows that it was drawn; two more for each are its own."""
    block = "print(seeded(), input_image.getpixel((3, 3)))"
    assert cost(sandbox, range(4), block) == ([[True]] * 4, 1 + 4 * 2)
    assert cost(sandbox, [7, 7, 7], block) == ([[True]] * 3, 1 + 2)


def test_a_drawn_constant_is_no_evidence_and_needs_no_shuffled_replay(sandbox):
    found, replays = cost(sandbox, range(4), "import os\nprint(os.urandom(4))")
    assert (found, replays) == ([[False]] * 4, 1 + 4)


def test_numbers_drawn_alike_on_both_pictures_are_no_evidence(sandbox):
    assert cost(sandbox, range(4), "print(seeded())")[0] == [[False]] * 4


def test_what_is_found_does_not_depend_on_which_sibling_came_first(sandbox):
    """Code that looks at the picture or not, by a draw: each sibling has a verdict of its own."""
    block = (
        "bright = sum(input_image.getpixel((3, 3)))\nprint(bright if seeded() < 0.5 else 'no look')"
    )
    forward, _ = cost(sandbox, range(12), block)
    backward, _ = cost(sandbox, range(11, -1, -1), block)
    assert forward == backward[::-1]
    assert forward == [cost(sandbox, [seed], block)[0][0] for seed in range(12)]
    assert {True, False} == {one for (one,) in forward}


def test_another_picture_or_another_block_is_another_replay(sandbox):
    cache = {}
    for task in (make_task(), make_task(images=(noise(seed=1),))):
        for block in (LOOK, LOOK + " "):
            record_evidence(*played(sandbox, block, task=task), sandbox, cache)
    assert len(cache) == 8


def test_blocks_are_told_apart_where_they_begin_and_end(sandbox):
    cache = {}
    record_evidence(*played(sandbox, LOOK, "x = 12"), sandbox, cache)
    record_evidence(*played(sandbox, LOOK + "\nx = 1", "2"), sandbox, cache)
    assert len(cache) == 4


def test_siblings_in_threads_wait_for_one_replay(sandbox):
    siblings = [played(sandbox, LOOK, seed=seed) for seed in range(8)]
    opened, cache = sandbox.opened, {}
    together = threading.Barrier(8)

    def look(sibling):
        together.wait(30)
        return record_evidence(*sibling, sandbox, cache).turns[0].has_evidence

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(look, siblings)) == [True] * 8
    assert sandbox.opened - opened == 2


def test_a_replay_that_our_sandbox_lost_is_tried_by_the_next_sibling(sandbox):
    one, two = (played(sandbox, LOOK, seed=seed) for seed in range(2))
    cache = {}
    sandbox.is_down = True
    assert not record_evidence(*one, sandbox, cache).is_valid
    sandbox.is_down = False
    assert record_evidence(*two, sandbox, cache).turns[0].has_evidence is True


def test_a_real_sandbox_shares_replays_too_where_modules_draw_from_its_seed(walled):
    calls = (
        "import random, tempfile\nprint(random.random(), tempfile.mktemp())",
        "import numpy as np\nprint(np.asarray(input_image)[3, 3], np.random.rand())",
        LOOK,
    )
    cache = {}
    for seed in (3, 4):
        one, images = played(walled, *calls, seed=seed)
        found = record_evidence(one, images, walled, cache)
        assert [turn.has_evidence for turn in found.tool_turns] == [False, True, True]
    assert len(cache) == 1 + 2 * 2


@pytest.fixture
def hashed(monkeypatch):
    """Return the sizes of the pictures that were hashed, in order."""
    sizes = []

    def sha256(head):
        sizes.append(tuple(map(int, head.split())))
        return hashlib.sha256(head)

    monkeypatch.setattr(picture, "hashlib", SimpleNamespace(sha256=sha256))
    return sizes


def test_each_picture_of_a_group_is_hashed_once(hashed, sandbox):
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
    # A crop is hashed as each sibling showed it, and as the two replays did.
    assert hashed.count((7, 9)) == 4 + 2


def test_a_digest_is_forgotten_with_its_picture():
    made = []

    @once_per_picture
    def size(image):
        made.append(image.size)
        return image.size

    one, equal = noise(), noise()
    assert size(one) == size(one) == size(equal)
    assert len(made) == 2  # equal pixels, two pictures
    known = size.__closure__
    held = next(cell.cell_contents for cell in known if isinstance(cell.cell_contents, dict))
    assert len(held) == 2
    del one, equal
    gc.collect()
    assert held == {}
