"""Pack the handwritten digits and photographs of the nano suite into ``sources.npz``.

Run manually (``python -m codedance.envs.suites.nano.build_sources``) where scikit-learn and
scikit-image are installed; the packed file is committed, so that the suite needs neither and draws
the same pixels under any version of them. Sources and licences are listed in ``docs/suite.md``.

Ink: scikit-learn's handwritten digits (UCI Optical Recognition, 43 writers), 8 by 8, 17 levels.
Train and test use disjoint samples. A sample whose nearest neighbour (itself excluded) is another
digit is left out, since its image is ambiguous.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PACKED = Path(__file__).with_name("sources.npz")
PHOTO_SIDE = 160
TRAIN_PHOTOS = ("coffee", "astronaut", "motorcycle_left", "flower", "hubble_deep_field", "gravel")
TEST_PHOTOS = ("chelsea", "china", "rocket", "retina", "grass")


def main() -> None:
    """Write ``sources.npz`` beside this file."""
    np.savez_compressed(PACKED, allow_pickle=False, **pack_sources())


def pack_sources() -> dict[str, NDArray[np.uint8]]:
    """Return the arrays of ``sources.npz``.

    Returns:
        ``{split}_ink`` ``(n, 8, 8)`` with levels 0 to 16, ``{split}_digits`` ``(n,)``, and
        ``{split}_photos`` ``(n, 160, 160, 3)``, for the splits ``train`` and ``test``.
    """
    ink, digits = _readable_ink()
    is_test = np.arange(len(digits)) % 4 == 3
    return {
        "train_ink": ink[~is_test],
        "train_digits": digits[~is_test],
        "test_ink": ink[is_test],
        "test_digits": digits[is_test],
        "train_photos": np.stack([_photo(name) for name in TRAIN_PHOTOS]),
        "test_photos": np.stack([_photo(name) for name in TEST_PHOTOS]),
    }


def _readable_ink() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    from sklearn.datasets import load_digits

    data, target = load_digits(return_X_y=True)
    flat = np.asarray(data, dtype=np.float32)
    digits = np.asarray(target, dtype=np.uint8)
    squares = (flat**2).sum(1)
    distances = squares[:, None] + squares[None, :] - 2 * flat @ flat.T
    np.fill_diagonal(distances, np.inf)
    is_readable = digits[distances.argmin(1)] == digits
    return flat.reshape(-1, 8, 8).astype(np.uint8)[is_readable], digits[is_readable]


def _photo(name: str) -> NDArray[np.uint8]:
    picture = Image.open(_photo_path(name)).convert("RGB")
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    square = picture.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((PHOTO_SIDE, PHOTO_SIDE), Image.Resampling.LANCZOS))


def _photo_path(name: str) -> Path:
    import skimage
    import sklearn.datasets

    folders = (
        Path(skimage.__file__).parent / "data",
        Path(sklearn.datasets.__file__).parent / "images",
    )
    for folder in folders:
        for path in sorted(folder.glob(f"{name}.*")):
            if path.suffix in {".png", ".jpg"}:
                return path
    raise FileNotFoundError(f"no photograph {name!r} in scikit-image or scikit-learn")


if __name__ == "__main__":
    main()
