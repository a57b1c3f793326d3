"""One window per volume, and no silent NaN."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrvol.errors import InputError
from hrvol.recipe.specs import IntensitySpec
from hrvol.volume.grid.tiling import box_shape
from hrvol.volume.intensity import intensity_window, sample_boxes, to_unit
from hrvol.volume.volume import open_volume

RNG = np.random.default_rng(0)
AUTO = IntensitySpec()


def test_8_bit_data_are_used_as_they_are():
    volume = open_volume(np.full((2, 3, 4), 17, np.uint8))
    assert intensity_window(volume, AUTO) == (0.0, 255.0)
    np.testing.assert_array_equal(to_unit(volume.read(), (0.0, 255.0)), np.float32(17) / np.float32(255))
    assert intensity_window(open_volume(np.zeros((3, 4), np.int8)), AUTO) == (-128.0, 127.0)


def test_other_types_use_percentiles_of_all_of_a_small_volume():
    values = RNG.normal(1000, 100, (10, 60, 70))
    values[0, 0, 0] = 1e9
    for dtype in (np.float32, np.uint16, ">i4"):
        kept = np.minimum(values, 60_000).astype(dtype)
        window = intensity_window(open_volume(kept), AUTO)
        assert window == pytest.approx(np.percentile(kept, [0.1, 99.9]))
    spec = IntensitySpec(percentiles=(10, 90))
    assert intensity_window(open_volume(values), spec) == pytest.approx(np.percentile(values, [10, 90]))
    assert intensity_window(open_volume(values.astype(np.uint8)), spec) != (0.0, 255.0)


def test_given_windows():
    volume = open_volume(np.full((2, 3, 4), np.nan))
    assert intensity_window(volume, IntensitySpec(window=(3, 5))) == (3.0, 5.0)
    counts = open_volume(np.zeros((2, 3), np.uint16))
    assert intensity_window(counts, IntensitySpec(window="dtype")) == (0.0, 65535.0)
    with pytest.raises(InputError, match="found float64, expected integers for window: dtype"):
        intensity_window(volume, IntensitySpec(window="dtype"))


def test_sample_of_a_large_volume_is_fixed_by_its_seed_and_near_the_truth():
    z, y, x = np.ogrid[:20, :600, :700]
    values = (1000 + 20 * z + y + x + RNG.integers(0, 9, (20, 600, 700))).astype(np.uint16)
    volume = open_volume(values)
    first = intensity_window(volume, AUTO, seed=1)
    assert first == intensity_window(volume, AUTO, seed=1)
    assert first != intensity_window(volume, AUTO, seed=2)
    low, high = np.percentile(values, [0.1, 99.9])
    assert first == pytest.approx((low, high), abs=0.1 * (high - low))


@given(st.tuples(st.integers(1, 300), st.integers(1, 9000), st.integers(1, 9000)), st.integers(0, 9))
def test_sample_boxes_lie_inside_and_stay_few(shape, seed):
    boxes = sample_boxes(shape, seed)
    assert boxes
    for box in boxes:
        assert all(0 <= span.start < span.stop <= n for span, n in zip(box, shape, strict=True))
    assert sum(int(np.prod(box_shape(box))) for box in boxes) <= 2**22 + 2**20


@pytest.mark.parametrize("values", [np.full((3, 4, 5), 7.0), np.full((3, 4, 5), 7, np.uint16)])
def test_constant_volumes_become_zero(values):
    window = intensity_window(open_volume(values), AUTO)
    assert window[0] < window[1]
    assert not to_unit(values, window).any()


def test_rare_grey_values_are_not_lost():
    values = np.zeros((10, 60, 70), np.uint16)
    values[5, 5, 5] = 900
    assert intensity_window(open_volume(values), AUTO) == (0.0, 900.0)


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.int16, np.uint16, ">u2", np.int32, np.uint64, np.float16, np.float64]
)
def test_to_unit_is_linear_and_clipped(dtype):
    unit = to_unit(np.array([[0, 10, 20, 60, 110, 120]]).astype(dtype), (10.0, 110.0))
    assert unit.dtype == np.float32
    np.testing.assert_allclose(unit, [[0, 0, 0.1, 0.5, 1, 1]], atol=1e-6)


def test_large_offsets_keep_their_digits():
    values = 2.0**31 + np.arange(5)
    for dtype in (np.float64, np.uint32):
        np.testing.assert_allclose(to_unit(values.astype(dtype), (2.0**31, 2.0**31 + 4)), np.arange(5) / 4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_is_found_and_named(bad):
    values = np.zeros((6, 7, 8), np.float32)
    values[4, 2, 3] = values[5, 0, 0] = bad
    with pytest.raises(InputError, match=rf"vol\.tif: found {bad} at z=14, y=102, x=1003, expected finite"):
        to_unit(values, (0.0, 1.0), source="vol.tif", origin=(10, 100, 1000))
    with pytest.raises(InputError, match="z=14, y=102, x=1003"):
        to_unit(values[4], (0.0, 1.0), origin=(14, 100, 1000))
    with pytest.raises(InputError, match=rf"ndarray array 6x7x8: found {bad} at z=4, y=2, x=3"):
        intensity_window(open_volume(values), AUTO)
