import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hrvol.features.deep.placement import (
    axis_weights,
    interleaved_offsets,
    spread,
    stretched_centres,
    token_centres,
)


@given(st.integers(1, 20), st.integers(1, 16), st.integers(1, 16), st.floats(-20, 20))
def test_token_centre_is_the_middle_of_its_patch(count, patch, stride, start):
    centres = token_centres(count, patch, stride, start)
    for i, centre in enumerate(centres):
        assert centre == pytest.approx(start + (2 * i * stride + patch) / 2)


@given(st.integers(2, 32), st.integers(1, 16))
def test_offsets_divide_the_patch_evenly_about_zero(patch, count):
    count = min(count, patch)
    offsets = interleaved_offsets(patch, count)
    assert len(set(offsets)) == count
    gaps = np.diff([*offsets, offsets[0] + patch])
    assert gaps.min() >= patch // count
    assert gaps.max() <= -(-patch // count)
    assert abs(np.mean(offsets)) <= 0.5


def test_offsets_of_the_default():
    assert interleaved_offsets(14, 4) == (-5, -1, 2, 5)
    assert interleaved_offsets(14, 1) == (0,)


@given(
    st.lists(st.floats(0, 100), min_size=2, max_size=30, unique=True),
    st.lists(st.floats(-10, 110), min_size=1),
)
def test_weights_interpolate_linearly_and_hold_beyond_the_ends(centres, pixels):
    centres, pixels = np.sort(np.array(centres)), np.array(pixels)
    if np.diff(centres).min() < 1e-3:
        return
    values = np.sin(centres)
    axis = axis_weights(centres, pixels, "bilinear")
    low, high, part = values[axis.low.numpy()], values[axis.high.numpy()], axis.fraction.numpy()
    np.testing.assert_allclose(low + (high - low) * part, np.interp(pixels, centres, values), atol=1e-4)


@given(st.integers(1, 40), st.integers(1, 200))
def test_stretch_nearest_is_torchs_nearest_exact(count, length):
    axis = axis_weights(stretched_centres(count, length), np.arange(length) + 0.5, "nearest")
    expected = torch.nn.functional.interpolate(
        torch.arange(count)[None, None].float(), length, mode="nearest-exact"
    )
    ties = (np.arange(length) + 0.5) * count / length
    sure = np.abs(ties - np.round(ties)) > 1e-6  # on a tie torch's float32 may fall either way
    assert (axis.low.numpy()[sure] == expected[0, 0].numpy()[sure]).all()


def test_stretch_bilinear_is_torchs_bilinear():
    tokens = torch.randn(5, 7, 3)
    y, x = (
        axis_weights(stretched_centres(n, m), np.arange(m) + 0.5, "bilinear") for n, m in ((5, 33), (7, 20))
    )
    result = torch.empty(33, 20, 3)
    spread([(tokens, y)], x, lambda a, b, values: result[a:b].copy_(values), rows=4)
    expected = torch.nn.functional.interpolate(tokens.permute(2, 0, 1)[None], (33, 20), mode="bilinear")[0]
    torch.testing.assert_close(result.permute(2, 0, 1), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("how", ["bilinear", "nearest"])
def test_views_that_share_columns_are_added_up(how):
    tokens = torch.randn(2, 5, 7, 3)
    y, turned, x = (
        axis_weights(stretched_centres(n, m), pixels, how)
        for n, m, pixels in (
            (5, 33, np.arange(33) + 0.5),
            (5, 33, 32.5 - np.arange(33)),
            (7, 20, np.arange(20) + 0.5),
        )
    )

    def spread_over(views, **options):
        result = torch.empty(33, 20, 3)
        spread(views, x, lambda a, b, values: result[a:b].copy_(values), **options)
        return result

    one, other = spread_over([(tokens[0], y)]), spread_over([(tokens[1], turned)], rows=5)
    both = spread_over([(tokens[0], y), (tokens[1], turned)], share=0.5, rows=7)
    torch.testing.assert_close(both, (one + other) / 2)
    torch.testing.assert_close(other, spread_over([(tokens[1].flip(0), y)]))
