import numpy as np
import pytest
from codedance.envs.episode import Episode
from codedance.envs.evidence import record_evidence, shuffled_picture
from codedance.envs.picture import picture_array
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
    picture = noise()
    shuffled = shuffled_picture(picture)
    assert shuffled.size == picture.size
    assert picture_array(shuffled).tobytes() == picture_array(shuffled_picture(picture)).tobytes()
    values, mixed = picture_array(picture).ravel(), picture_array(shuffled).ravel()
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
