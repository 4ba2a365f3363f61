"""Copies are found, and images that only look similar are not."""

from __future__ import annotations

import io

from codedance.pipelines.analysis.similarity import Twins, find_twins, fingerprint
from codedance.pipelines.stages.curate import find_copies
from PIL import Image, ImageDraw

from ..makers import make_picture, make_task


def smooth_picture():
    small = make_picture(5, (6, 6))
    return small.resize((96, 96), Image.Resampling.BICUBIC)


def recompressed(image):
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=92)
    return Image.open(buffer).convert("RGB")


def dot_at(x):
    picture = Image.new("RGB", (96, 96), "white")
    ImageDraw.Draw(picture).ellipse((x, 40, x + 6, 46), fill="black")
    return picture


def task_of(number, picture, **changes):
    return make_task(number, images=(picture,), **changes)


def test_same_pixels_and_question_are_an_exact_twin():
    first = fingerprint(task_of(0, make_picture(1)))
    second = fingerprint(task_of(1, make_picture(1), question="how many  DOTS are there?"))
    assert find_twins([second], against=[first]) == {second.task_id: (first.task_id, True)}


def test_recompressed_image_is_a_near_twin():
    first = fingerprint(task_of(0, smooth_picture()))
    second = fingerprint(task_of(1, recompressed(smooth_picture())))
    assert find_twins([second], against=[first]) == {second.task_id: (first.task_id, False)}


def test_drawings_with_equal_hashes_are_distinguished_by_their_pixels():
    first, second = fingerprint(task_of(0, dot_at(10))), fingerprint(task_of(1, dot_at(70)))
    assert find_twins([second], against=[first], near_bits=256) == {}


def test_another_question_or_answer_is_not_a_near_twin():
    first = fingerprint(task_of(0, smooth_picture()))
    other_answer = fingerprint(task_of(1, recompressed(smooth_picture()), answer="4"))
    other_question = fingerprint(task_of(2, smooth_picture(), question="How many squares?"))
    assert find_twins([other_answer, other_question], against=[first]) == {}


def test_twins_are_found_among_the_added_tasks():
    twins = Twins(near_bits=6)
    item = fingerprint(task_of(0, make_picture(1)))
    assert twins.find(item) is None
    twins.add(item)
    assert twins.find(item) == (item.task_id, True)


def test_task_without_images_can_be_compared():
    task = make_task(0, images=())
    again = make_task(1, images=())
    assert find_twins([fingerprint(again)], against=[fingerprint(task)]) == {
        again.id: (task.id, True)
    }


def test_leaks_and_duplicates_are_distinguished():
    held_out = task_of(9, make_picture(1), split="test")
    candidates = [
        task_of(0, make_picture(1)),
        task_of(1, make_picture(2)),
        task_of(2, make_picture(2)),
    ]
    leaks, duplicates = find_copies(candidates, [held_out], 6)
    assert leaks == {candidates[0].id: held_out.id}
    assert duplicates == {candidates[2].id: candidates[1].id}
