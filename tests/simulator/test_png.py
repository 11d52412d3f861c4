"""The result files are real PNG files of the stated size, and no two are alike."""

import io

import pytest
from PIL import Image

from service.simulator.png import LARGEST_SIDE, clamp, picture


@pytest.mark.parametrize(("width", "height"), [(1, 1), (7, 3), (1024, 768), (LARGEST_SIDE, 9)])
def test_pillow_opens_the_picture_in_its_stated_size(width: int, height: int) -> None:
    data = picture(width=width, height=height, name="a")
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert (image.format, image.size) == ("PNG", (width, height))
        assert len(set(image.convert("RGB").resize((4, 4)).get_flattened_data())) == 1
    assert len(data) < 10_000


def test_pictures_of_two_names_differ() -> None:
    assert picture(width=8, height=8, name="a") != picture(width=8, height=8, name="b")
    assert picture(width=8, height=8, name="a") == picture(width=8, height=8, name="a")


def test_sizes_that_cannot_be_drawn_are_clamped() -> None:
    assert [clamp(side) for side in (-5, 0, 1, 10**9)] == [1, 1, 1, LARGEST_SIDE]
