from typing import Any

import numpy as np
import pytest
import torch
from codedance.policies.models.pictures import PictureCache, picture_digest
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from ..tiny import noise


class CountingProcessor:
    """The real processor, with a count of the processed images."""

    def __init__(self) -> None:
        self.real = Qwen2VLImageProcessorPil(min_pixels=28 * 28, max_pixels=112 * 112)
        self.merge_size, self.patch_size = self.real.merge_size, self.real.patch_size
        self.temporal_patch_size = self.real.temporal_patch_size
        self.count = 0

    def __call__(self, images: list[Image.Image], **options: Any) -> Any:
        self.count += len(images)
        return self.real(images=images, **options)


@pytest.fixture
def processor() -> CountingProcessor:
    return CountingProcessor()


@pytest.mark.parametrize("size", [(56, 56), (84, 56), (31, 77), (300, 200), (1, 1)])
def test_pixel_values_are_the_processors_own_bit_for_bit(
    processor: CountingProcessor, size: tuple[int, int]
):
    image = noise(3, *size)
    cache = PictureCache(processor)
    expected = processor.real(images=[image], return_tensors="pt")
    assert torch.equal(cache.pixel_values([cache.patches(image)]), expected["pixel_values"])
    assert [1, *cache.patches(image).grid] == expected["image_grid_thw"][0].tolist()


def test_values_that_are_not_levels_are_unchanged(processor: CountingProcessor):
    processor.real.do_rescale = False
    cache = PictureCache(processor)
    processor.real.image_mean = [0.1, 0.2, 0.3]  # the measured levels are no longer valid
    image = noise(0)
    expected = processor.real(images=[image], return_tensors="pt")["pixel_values"]
    assert torch.equal(cache.pixel_values([cache.patches(image)]), expected)


def test_equal_images_are_processed_once(processor: CountingProcessor):
    cache = PictureCache(processor)
    before = processor.count
    for image in (noise(0), noise(0), noise(1), noise(0).copy()):
        cache.patches(image)
    assert processor.count - before == 2


def test_cached_bytes_stay_within_the_bound(processor: CountingProcessor):
    one = 56 * 56 * 3
    cache = PictureCache(processor, max_bytes=2 * one)
    for seed in (0, 1, 0, 2):  # 1 is the least recently used when 2 is added
        cache.patches(noise(seed))
    before = processor.count
    cache.patches(noise(0))
    cache.patches(noise(2))
    assert processor.count == before
    cache.patches(noise(1))
    assert processor.count == before + 1


def test_token_count_is_the_merged_grid(processor: CountingProcessor):
    assert PictureCache(processor).token_count(noise(0, 84, 56)) == 3 * 2


def test_images_of_different_sizes_with_equal_bytes_are_distinguished(processor: CountingProcessor):
    cache = PictureCache(processor)
    tall = Image.fromarray(np.zeros((84, 56, 3), np.uint8))
    wide = Image.fromarray(np.zeros((56, 84, 3), np.uint8))
    assert cache.patches(tall).grid != cache.patches(wide).grid


def test_an_image_of_another_mode_is_converted_like_a_questions_image(processor: CountingProcessor):
    cache = PictureCache(processor)
    clear = Image.new("RGBA", (56, 56), (0, 0, 0, 0))
    white = Image.new("RGB", (56, 56), "white")
    assert picture_digest(clear) == picture_digest(white)
    assert torch.equal(
        cache.pixel_values([cache.patches(clear)]), cache.pixel_values([cache.patches(white)])
    )
    assert processor.count == 2  # the ramp that the cache measures, and one of the two


def test_images_with_different_palettes_are_different():
    red, blue = (Image.new("RGB", (8, 8), colour).quantize(2) for colour in ("red", "blue"))
    assert red.tobytes() == blue.tobytes()
    assert picture_digest(red) != picture_digest(blue)


def test_images_of_a_known_size_are_counted_and_sent_without_the_processor(
    processor: CountingProcessor,
):
    cache = PictureCache(processor)
    for size in ((56, 84), (300, 200)):
        first = noise(1, *size)
        count, sent = cache.token_count(first), cache.at_model_size(first)
        processed = processor.count
        assert cache.token_count(noise(2, *size)) == count
        assert processor.count == processed
        assert sent.size == ((56, 84) if size == (56, 84) else sent.size)
    other = noise(3, 56, 84)
    processed = processor.count
    found = cache.at_model_size(other)
    assert processor.count == processed  # it has the model's size
    fresh = PictureCache(processor)  # which processes it
    assert np.array_equal(np.asarray(found), np.asarray(fresh.at_model_size(other)))
