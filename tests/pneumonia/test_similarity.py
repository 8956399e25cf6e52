import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from pneumonia.similarity import scale, ssim

C1, C2 = 1e-4, 9e-4


def draw(seed, shape):
    return scale(np.random.default_rng(seed).normal(size=shape))


def test_ssim_of_one_cell_compares_the_brightness_hand_computed():
    told = ssim(np.array([[1.0]]), np.array([[0.5]]))
    assert told == pytest.approx((2 * 0.5 + C1) / (1 + 0.25 + C1))


def test_ssim_of_two_cells_hand_computed():
    near = 1 / (1 + np.exp(-1 / (2 * 1.5**2)))  # weight of a cell in its own window
    far = 1 - near
    spread = near * far  # variance of either map in either window; the covariance is its negative
    expected = (
        (2 * spread + C1) * (-2 * spread + C2) / ((near**2 + far**2 + C1) * (2 * spread + C2))
    )
    told = ssim(np.array([[0.0, 1.0]]), np.array([[1.0, 0.0]]))
    assert told == pytest.approx(expected)
    assert told < 0


def filtered(first, second):
    """Wang's formula over scipy's Gaussian, 11 wide, divided by how much of it is on the map."""

    def local(values):
        seen, on_the_map = (
            gaussian_filter(part, 1.5, truncate=3.5, mode="constant")
            for part in (values, np.ones(values.shape))
        )
        return seen / on_the_map

    x, y = local(first), local(second)
    variances = local((first - second) ** 2) - (x - y) ** 2  # of the difference
    own, other = local(first**2) - x**2, local(second**2) - y**2
    common = (own + other - variances) / 2
    brightness = (2 * x * y + C1) / (x**2 + y**2 + C1)
    return (brightness * (2 * common + C2) / (own + other + C2)).mean()


@pytest.mark.parametrize("shape", [(4, 4), (8, 7), (16, 16), (32, 20)])
def test_ssim_is_that_of_filtered_maps(shape):
    first, second = draw(0, shape), draw(1, shape)
    assert ssim(first, second) == pytest.approx(filtered(first, second), abs=1e-12)
    mixed = (first + second) / 2
    assert ssim(first, mixed) == pytest.approx(filtered(first, mixed), abs=1e-12)


@given(st.integers(0, 1000), st.integers(1, 20), st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_ssim_is_one_for_itself_symmetric_and_bounded(seed, rows, columns):
    first, second = draw(seed, (rows, columns)), draw(seed + 1, (rows, columns))
    assert ssim(first, first) == pytest.approx(1)
    assert ssim(first, second) == pytest.approx(ssim(second, first))
    assert -1 <= ssim(first, second) <= 1
    assert ssim(first[:, ::-1], second[:, ::-1]) == pytest.approx(ssim(first, second))


def test_ssim_falls_as_noise_rises_and_below_zero_for_the_negative():
    heat = draw(0, (16, 16))
    noise = np.random.default_rng(1).random((16, 16))
    mixed = [ssim(heat, (1 - share) * heat + share * noise) for share in (0, 0.3, 0.6, 1)]
    assert mixed == sorted(mixed, reverse=True)
    assert ssim(heat, 1 - heat) < -0.5


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        (np.zeros((4, 4)), np.zeros((4, 5)), "one shape"),
        (np.zeros((0, 4)), np.zeros((0, 4)), "one shape"),
        (np.zeros(4), np.zeros(4), "one shape"),
        (np.zeros((2, 2)), np.full((2, 2), 1.5), "values in"),
        (np.full((2, 2), np.nan), np.zeros((2, 2)), "values in"),
    ],
)
def test_ssim_of_other_than_scaled_maps_is_rejected(first, second, told):
    with pytest.raises(ValueError, match=told):
        ssim(first, second)


def test_scale_of_a_constant_map_is_zero():
    assert scale(np.full((2, 3), 7.0, np.float32)).tolist() == [[0.0] * 3] * 2
