import films
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pneumonia.preprocess import (
    FINE,
    Geometry,
    GreyRule,
    Lut,
    Window,
    fit,
    geometry,
    grey_table,
    render,
)

WHITE = 255 * FINE
RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def test_window_linear_follows_the_standard():
    # PS3.3 C.11.2.1.2.1: c = 2048, w = 4096 maps 0..4095 to the whole range
    light = Window(2048, 4096)(np.array([-10.0, 0.0, 2047.5, 4095.0, 5000.0]))
    assert light == pytest.approx([0, 0, 0.5, 1, 1], abs=1e-12)


def test_window_exact_differs_by_half_a_value():
    light = Window(2048, 4096, "LINEAR_EXACT")(np.array([0.0, 2048.0, 4096.0]))
    assert light == pytest.approx([0, 0.5, 1])


def test_window_sigmoid_at_its_center_and_one_width_off():
    light = Window(100, 40, "SIGMOID")(np.array([-1e9, 100.0, 140.0, 1e9]))
    assert light == pytest.approx([0, 0.5, 1 / (1 + np.exp(-4)), 1])


def test_window_width_one_is_a_threshold():
    assert Window(2, 1)(np.array([1.0, 1.5, 2.0])).tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("width", "function"), [(0, "LINEAR"), (0.5, "LINEAR"), (0, "SIGMOID"), (-1, "LINEAR_EXACT")]
)
def test_window_width_out_of_range_raises(width, function):
    with pytest.raises(ValueError, match="`width` must be"):
        Window(10, width, function)


@pytest.mark.parametrize("bits", [1, 7, 17, 32])
def test_grey_rule_depth_out_of_range_raises(bits):
    with pytest.raises(ValueError, match=r"`bits` must be in 8\.\.16"):
        GreyRule(bits=bits)


def test_grey_table_without_window_needs_counts():
    with pytest.raises(ValueError, match="`counts` must be given"):
        grey_table(GreyRule(bits=12))


def test_render_plain_keeps_values_and_inverts():
    image = films.phantom()
    assert render(image, GreyRule()) is image
    assert np.array_equal(render(image, GreyRule(inverted=True)), 255 - image)


def test_render_plain_ignores_bits_above_the_stored_ones():
    image = films.phantom()
    assert np.array_equal(render(image.astype(np.uint16) | 0xF00, GreyRule()), image)


def test_render_window_after_rescale():
    # value = 2 x stored - 100; window 0..100 by LINEAR_EXACT; so stored 50..100 is black to white
    rule = GreyRule(bits=12, slope=2, intercept=-100, voi=Window(50, 100, "LINEAR_EXACT"))
    pixels = np.array([[0, 50, 75, 100, 4095]], np.uint16)
    assert render(pixels, rule).tolist() == [[0, 0, round(WHITE / 2), WHITE, WHITE]]


def test_render_modality_then_voi_table():
    modality = Lut(0, np.array([10.0, 20.0, 30.0]), 8)
    voi = Lut(10, np.linspace(0, 1023, 21), 10)
    pixels = np.array([[0, 1, 2, 200]], np.uint8)
    grey = render(pixels, GreyRule(modality=modality, voi=voi))
    assert grey.tolist() == [[0, round(WHITE / 2), WHITE, WHITE]]


def test_render_signed_values_with_dirty_high_bits():
    rule = GreyRule(bits=12, signed=True, voi=Window(0, 4096, "LINEAR_EXACT"))
    pixels = np.array([[-2048, -1, 0, 2047]], np.int16)
    clean = render(pixels, rule)
    dirty = (pixels.view(np.uint16) & 0x0FFF | 0x5000).view(np.int16)
    assert np.array_equal(render(dirty, rule), clean)
    assert np.all(np.diff(clean.astype(int)) > 0)
    assert clean[0, 0] == 0


def test_render_percentiles_leave_extremes_out():
    pixels = np.full((100, 100), 1000, np.uint16)
    pixels[:50] = 2000
    pixels[0, :40] = 4095  # 0.4 % burned-in letters
    grey = render(pixels, GreyRule(bits=12))
    assert grey[60, 0] == 0
    assert grey[10, 0] == WHITE
    assert grey[0, 0] == WHITE


@given(st.integers(-3000, 3000), st.floats(0.25, 8), st.booleans())
def test_render_percentiles_do_not_depend_on_rescale(intercept, slope, inverted):
    plain = render(RAMP, GreyRule(bits=12, inverted=inverted))
    scaled = GreyRule(bits=12, slope=slope, intercept=intercept, inverted=inverted)
    assert np.max(np.abs(render(RAMP, scaled).astype(int) - plain)) <= 1


def test_render_negative_slope_equals_inversion():
    down = render(RAMP, GreyRule(bits=12, slope=-1))
    up = render(RAMP, GreyRule(bits=12, inverted=True))
    assert np.max(np.abs(down.astype(int) - up)) <= 2 * FINE  # percentiles of the other side


def test_render_constant_frame_is_black():
    assert not render(np.full((8, 8), 700, np.uint16), GreyRule(bits=12)).any()


@pytest.mark.parametrize("inverted", [False, True])
def test_render_padding_is_black_and_outside_the_percentiles(inverted):
    pixels = RAMP.copy()
    pixels[:32] = 63_000
    rule = GreyRule(bits=16, padding=(62_000, 64_000), inverted=inverted)
    grey = render(pixels, rule)
    assert not grey[:32].any()
    assert np.array_equal(grey[32:], render(RAMP[32:], GreyRule(bits=16, inverted=inverted)))


@pytest.mark.parametrize("inverted", [False, True])
def test_render_8_bits_with_a_padding_value_are_kept_as_without_it(inverted):
    image = np.clip(films.phantom(), 40, 200)  # far from black and white: a stretch would show
    image[:8] = 3
    kept = render(image, GreyRule(inverted=inverted)) * np.uint16(FINE)
    padded = render(image, GreyRule(padding=(3, 3), inverted=inverted))
    assert np.array_equal(padded[8:], kept[8:])
    assert not padded[:8].any()
    unused = render(image, GreyRule(padding=(255, 255), inverted=inverted))
    assert np.array_equal(unused, kept)


def test_render_only_padding_is_black():
    assert not render(np.zeros((8, 8), np.uint16), GreyRule(bits=16, padding=(0, 0))).any()


def test_render_in_bands_equals_render_at_once():
    pixels = np.tile(RAMP, (9, 1))  # 576 rows, more than two bands
    grey = render(pixels, GreyRule(bits=12))
    assert np.array_equal(grey, np.tile(render(RAMP, GreyRule(bits=12)), (9, 1)))


@pytest.mark.parametrize(
    ("shape", "side"),
    [((64, 64), 16), ((96, 96), 28), ((100, 60), 32), ((60, 100), 33), ((1000, 20), 64)],
)
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_fit_equals_exact_area_average(shape, side, kind):
    image = films.phantom(*shape)
    longest = max(shape)
    placed = geometry(*shape, side)
    square = np.zeros((longest, longest))
    top = round(placed.offset_y / placed.scale)
    left = round(placed.offset_x / placed.scale)
    square[top : top + shape[0], left : left + shape[1]] = image
    exact = films.area_average(square, side)
    grey = image if kind == np.uint8 else image.astype(np.uint16) * FINE
    assert np.abs(fit(grey, side) - exact).max() <= 0.51


def test_fit_same_size_copies_nothing_away():
    image = films.phantom(32, 32)
    assert np.array_equal(fit(image, 32), image)
    assert np.array_equal(fit(image.astype(np.uint16) * FINE, 32), image)


@pytest.mark.parametrize("shape", [(20, 20), (20, 12), (5, 16)])
def test_fit_smaller_frames_are_enlarged_between_their_values(shape):
    image = np.full(shape, 200, np.uint8)
    large = fit(image, 64)
    assert large.shape == (64, 64)
    assert large.max() == 200
    assert (shape[0] == shape[1]) == (large.min() == 200)


def test_fit_scaled_decode_is_placed_like_the_full_frame():
    image = np.kron(films.phantom(48, 32), np.ones((4, 4), np.uint8))  # 192 x 128
    small = image[::4, ::4]
    assert np.array_equal(fit(small, 24, shrunk=4), fit(image, 24))


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(16, 512))
def test_geometry_keeps_the_frame_inside_the_square(rows, columns, side):
    placed = geometry(rows, columns, side)
    right = columns * placed.scale + placed.offset_x
    bottom = rows * placed.scale + placed.offset_y
    assert placed.offset_x >= 0
    assert placed.offset_y >= 0
    assert max(right, bottom) <= side + 1e-9
    assert max(rows, columns) * placed.scale == pytest.approx(side)
    assert min(placed.offset_x, placed.offset_y) == 0


def test_geometry_maps_a_bright_box_where_it_is():
    image = np.zeros((400, 240), np.uint8)
    image[120:280, 40:200] = 255
    placed = geometry(400, 240, 40)
    assert placed == Geometry(0.1, 8.0, 0.0)
    stored = fit(image, 40)
    rows, columns = np.nonzero(stored)
    assert (rows.min(), rows.max() + 1) == (12, 28)
    assert (columns.min(), columns.max() + 1) == (40 * 0.1 + 8, 200 * 0.1 + 8)
