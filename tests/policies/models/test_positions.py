import numpy as np
import pytest
import torch
from codedance.policies.models.positions import mrope_positions
from codedance.policies.models.token_model import TokenModel

IMAGE = 9


def test_text_positions_increase_and_an_image_spans_a_square():
    positions = mrope_positions([1, 2, *[IMAGE] * 6, 3], [(2, 3)], image_id=IMAGE)
    assert positions.tolist() == [
        [0, 1, 2, 2, 2, 2, 2, 2, 5],  # after 2 rows and 3 columns the text continues at 2 + 3
        [0, 1, 2, 2, 2, 3, 3, 3, 5],
        [0, 1, 2, 3, 4, 2, 3, 4, 5],
    ]


def test_positions_equal_those_of_transformers(tiny_model: TokenModel):
    grids = [(2, 3), (1, 1), (4, 2)]
    image = tiny_model.chat.image_id
    ids: list[int] = [5]
    for rows, columns in grids:
        ids += [7, *[image] * (rows * columns), 8, 8]
    expected, _ = tiny_model.model.model.get_rope_index(
        torch.tensor([ids]),
        mm_token_type_ids=(torch.tensor([ids]) == image).int(),
        image_grid_thw=torch.tensor([[1, 2 * rows, 2 * columns] for rows, columns in grids]),
    )
    assert np.array_equal(mrope_positions(ids, grids, image_id=image), expected[:, 0].numpy())


def test_images_that_do_not_match_the_ids_are_rejected():
    with pytest.raises(ValueError, match="3 image tokens, but the 1 pictures take 4"):
        mrope_positions([1, IMAGE, IMAGE, IMAGE], [(2, 2)], image_id=IMAGE)
