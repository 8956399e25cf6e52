import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pneumonia import augment

SIDE, CROP = 40, 32


def draw(seed=0, n=16, strength=0.5, flip=True, side=SIDE, crop=CROP):
    return augment.draw(
        np.random.default_rng(seed), n, side=side, crop=crop, strength=strength, flip=flip
    )


def noise(n=16, side=SIDE, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, side, side), dtype=np.uint8)


def sample(image, matrix, crop):
    """Bilinear sampling in float64 by the definition, black outside: the reference."""
    y, x = np.mgrid[:crop, :crop]
    places = np.stack([x, y, np.ones_like(x)], axis=-1) @ matrix.T
    left, top = np.floor(places[..., 0]).astype(int), np.floor(places[..., 1]).astype(int)
    dx, dy = places[..., 0] - left, places[..., 1] - top
    framed = np.pad(image.astype(float), 1)
    last = len(image) + 1

    def at(row, column):
        return framed[np.clip(row + 1, 0, last), np.clip(column + 1, 0, last)]

    upper = at(top, left) * (1 - dx) + at(top, left + 1) * dx
    lower = at(top + 1, left) * (1 - dx) + at(top + 1, left + 1) * dx
    return upper * (1 - dy) + lower * dy


def test_strength_0_is_the_central_crop():
    images = noise()
    changes = draw(strength=0.0, flip=False)
    central = images[:, 4:36, 4:36]
    assert np.array_equal(augment.warp(images, changes.matrices, CROP), central)
    grey = augment.relight(
        torch.from_numpy(central),
        torch.from_numpy(changes.contrast),
        torch.from_numpy(changes.brightness),
    )
    assert np.array_equal(grey.numpy(), central)


def test_flip_mirrors_half_of_the_images_and_nothing_else():
    images = noise(64)
    warped = augment.warp(images, draw(n=64, strength=0.0).matrices, CROP)
    central = images[:, 4:36, 4:36]
    mirrored = [np.array_equal(new, old[:, ::-1]) for new, old in zip(warped, central, strict=True)]
    kept = [np.array_equal(new, old) for new, old in zip(warped, central, strict=True)]
    assert np.logical_xor(mirrored, kept).all()
    assert 16 <= sum(mirrored) <= 48


def test_a_quarter_turn_by_hand():
    image = np.array([[[1, 2], [3, 4]]], dtype=np.uint8)
    matrix = np.array([[[0.0, 1.0, 0.0], [-1.0, 0.0, 1.0]]])  # (x, y) of the crop from (y, 1 - x)
    expected = [[[3, 1], [4, 2]]]
    assert augment.warp(image, matrix, 2).tolist() == expected
    warped = augment.warp_tensor(torch.from_numpy(image), torch.from_numpy(matrix).float(), 2)
    np.testing.assert_allclose(warped.numpy(), expected, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    strength=st.floats(0, 1),
    side=st.integers(24, 64),
    margin=st.integers(0, 8),
)
def test_both_back_ends_agree_with_the_definition(seed, strength, side, margin):
    """OpenCV to its rounding, half a grey level; torch to that of 32-bit coordinates."""
    crop = side - margin
    images = noise(4, side, seed)
    matrices = draw(seed, 4, strength, side=side, crop=crop).matrices
    expected = np.stack([sample(*pair, crop) for pair in zip(images, matrices, strict=True)])
    warped = augment.warp(images, matrices, crop)
    assert np.abs(warped - expected).max() < 0.51
    tensors = torch.from_numpy(images), torch.from_numpy(matrices).float()
    assert np.abs(augment.warp_tensor(*tensors, crop).numpy() - expected).max() < 0.02


def test_draw_same_seed_gives_same_changes_and_another_gives_others():
    first, same, other = draw(1), draw(1), draw(2)
    assert np.array_equal(first.matrices, same.matrices)
    assert np.array_equal(first.contrast, same.contrast)
    assert not np.array_equal(first.matrices, other.matrices)


def test_draw_stays_within_its_ranges():
    changes = draw(n=2000, strength=1.0)
    turn = changes.matrices[:, :, :2]
    scale = np.sqrt(np.abs(np.linalg.det(turn)))
    assert np.abs(np.log(scale)).max() <= augment.MAX_LOG_SCALE
    angle = np.abs(np.arctan2(turn[:, 0, 1], turn[:, 1, 1]))  # the mirror leaves this column
    assert angle.max() <= augment.MAX_ANGLE
    centre = changes.matrices @ np.array([(CROP - 1) / 2, (CROP - 1) / 2, 1.0])
    shift = centre - (SIDE - 1) / 2
    assert np.abs(shift).max() <= augment.MAX_SHIFT * SIDE
    assert np.abs(np.log(changes.contrast)).max() <= augment.MAX_LOG_CONTRAST
    assert np.abs(changes.brightness).max() <= augment.MAX_BRIGHTNESS
    assert np.abs(shift.mean()) < 0.2  # to no side more than to the other


def test_changes_of_some_images():
    part = draw()[4:6]
    assert part.matrices.shape == (2, 2, 3)
    assert part.contrast.shape == part.brightness.shape == (2,)


def test_relight_turns_about_mid_grey():
    grey = torch.tensor([[[127.5, 227.5]]])
    changed = augment.relight(grey, torch.tensor([0.5]), torch.tensor([10.0]))
    assert changed.tolist() == [[[137.5, 187.5]]]


def test_warp_refuses_matrices_of_another_number():
    with pytest.raises(ValueError, match="zip"):
        augment.warp(noise(3), draw(n=2).matrices, CROP)


def test_look_up_is_relight_bit_by_bit():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 24, 20), dtype=np.uint8)
    lights = torch.from_numpy(rng.uniform((0.6, -40), (1.5, 40), (5, 2)).astype(np.float32)).T
    expected = augment.relight(torch.from_numpy(images).float(), *lights)
    levels = torch.arange(256, dtype=torch.float32).expand(5, 1, 256)
    out = np.empty(images.shape, np.float32)
    augment.look_up(images, augment.relight(levels, *lights)[:, 0].numpy(), out)
    assert np.array_equal(out, expected.numpy())
