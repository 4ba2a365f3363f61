import numpy as np
import pytest
from codedance.envs.spaces import AnyText, Picture, observation_space


@pytest.mark.parametrize("text", ["", "é", "\ud800", "\0", "日本語", "x" * 100_000])
def test_every_string_is_text(text):
    assert text in AnyText()


def test_a_value_that_is_not_a_string_or_too_long_is_not_in_the_text_space():
    assert 5 not in AnyText()
    assert b"a" not in AnyText()
    assert "aaa" not in AnyText(2)
    assert AnyText(2) == AnyText(2) != AnyText(3)


def test_samples_are_in_their_space_and_depend_on_the_seed():
    for make in (AnyText, Picture):
        first, second = make(seed=4), make(seed=4)
        for _ in range(20):
            one, other = first.sample(), second.sample()
            assert one in first
            assert np.array_equal(one, other)


def test_text_samples_accept_gymnasiums_masks():
    assert len(AnyText(seed=0).sample(mask=(7, None))) == 7


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 2, 3)),
        np.zeros((2, 2, 4), np.uint8),
        np.zeros((2, 2), np.uint8),
        np.zeros((0, 2, 3), np.uint8),
        [[[0, 0, 0]]],
    ],
)
def test_a_value_that_is_not_an_rgb_array_is_not_in_the_image_space(array):
    assert array not in Picture()


def test_an_observation_has_text_and_any_number_of_images_of_any_size():
    space = observation_space()
    for sizes in ([], [(1, 1)], [(5, 900), (3, 2)]):
        images = tuple(np.zeros((*size, 3), np.uint8) for size in sizes)
        assert {"text": "\ud800", "images": images} in space
    assert space == observation_space()
