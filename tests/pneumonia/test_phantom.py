import io
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pneumonia.phantom import (
    FINDINGS,
    SIDE,
    Opacity,
    draw,
    draw_anatomy,
    encode_jpeg,
    place_opacities,
)


def generator(*seed):
    return np.random.default_rng(seed)


def make_body(view="PA", seed=0):
    return draw_anatomy(generator(seed, 0), generator(seed, 1), view=view)


def test_box_is_cut_at_the_frame():
    assert Opacity(0.0, 1.0, 0.25, 0.125, 30.0).box() == (0, 896, 256, 128)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 4), view=st.sampled_from(["AP", "PA"]))
def test_place_opacities_boxes_are_in_the_frame_and_change_sides(seed, count, view):
    body = make_body(view, seed)
    clouds = place_opacities(body, count, generator(seed, 2), contrast=30.0)
    assert len(clouds) == count
    for x, y, width, height in (cloud.box() for cloud in clouds):
        assert min(x, y) >= 0
        assert min(width, height) >= 50
        assert x + width <= SIDE
        assert y + height <= SIDE
    sides = [cloud.x > body.middle for cloud in clouds]
    assert all(one != other for one, other in pairwise(sides))


def test_place_opacities_none_asked_none_placed():
    assert place_opacities(make_body(), 0, generator(0), contrast=30.0) == ()


def test_draw_anatomy_ap_has_larger_heart_and_higher_diaphragm():
    bodies = {view: [make_body(view, seed) for seed in range(40)] for view in ("AP", "PA")}
    heart = {view: np.mean([body.heart for body in bodies[view]]) for view in bodies}
    diaphragm = {view: np.mean([body.diaphragm for body in bodies[view]]) for view in bodies}
    assert heart["AP"] > 1.15 * heart["PA"]
    assert diaphragm["AP"] < diaphragm["PA"] - 0.05


def test_draw_anatomy_same_person_keeps_ribs_on_every_film():
    first = draw_anatomy(generator(7), generator(1), view="PA")
    second = draw_anatomy(generator(7), generator(2), view="AP")
    assert (first.rib_phase, first.rib_spacing) == (second.rib_phase, second.rib_spacing)
    assert first.middle != second.middle


def test_draw_same_generator_gives_the_same_pixels():
    body = make_body()
    images = [draw(body, (), ("line",), generator(seed)) for seed in (3, 3, 4)]
    assert images[0].shape == (SIDE, SIDE)
    assert images[0].dtype == np.uint8
    assert np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])


@pytest.mark.parametrize("seed", range(6))
def test_draw_opacity_is_brighter_inside_its_box_and_nowhere_else(seed):
    body = make_body("AP", seed)
    (cloud,) = place_opacities(body, 1, generator(seed, 2), contrast=25.0)
    without, with_it = (
        draw(body, clouds, (), generator(seed, 3)).astype(float) for clouds in ((), (cloud,))
    )
    brighter = with_it - without
    x, y, width, height = cloud.box()
    inside = brighter[y : y + height, x : x + width]
    assert brighter.min() >= -2  # enlarging overshoots at edges
    assert inside.mean() > 2.5
    assert inside.sum() > 0.95 * brighter.sum()  # the rim is ragged
    rows, columns = np.nonzero(brighter >= 2)
    for marked, length in ((rows, height), (columns, width)):
        assert marked.max() - marked.min() > 0.6 * length  # the box fits what can be seen


@pytest.mark.parametrize("finding", FINDINGS)
def test_draw_finding_can_be_seen_and_the_letters_stay(finding):
    body = make_body()
    plain = draw(body, (), (), generator(5)).astype(int)
    marked = draw(body, (), (finding,), generator(5)).astype(int)
    assert (np.abs(marked - plain) > 8).sum() > 300
    assert np.array_equal(marked[960:], plain[960:])


def test_draw_unknown_finding_raises():
    with pytest.raises(ValueError, match=r"names of \('line', .*got \['tooth'\]"):
        draw(make_body(), (), ("line", "tooth"), generator(0))


def test_draw_burns_in_simulated_under_every_exposure():
    words = []
    for seed in range(4):
        image = draw(make_body("AP", seed), (), (), generator(seed))
        words.append(image[960:1015, 380:650] == 235)
        assert image[:960, :900].max() < 240
    assert np.logical_and.reduce(words).sum() > 1500
    assert np.logical_or.reduce(words).sum() < 2000


def test_encode_jpeg_is_baseline_grey_and_close():
    image = draw(make_body(), (), (), generator(0))
    content = encode_jpeg(image)
    assert content[:2] == b"\xff\xd8"
    assert b"\xff\xc0\x00\x0b\x08\x04\x00\x04\x00\x01" in content  # SOF0, 8 bits, 1024 x 1024 x 1
    decoded = np.asarray(Image.open(io.BytesIO(content)))
    assert np.abs(decoded.astype(float) - image).mean() < 2.5
    assert 50_000 < len(content) < 170_000  # the challenge's own: 70 to 165 KB
