"""The filter bank: its channels against independent formulas, its locality, its symmetries."""

import sys
from types import ModuleType
from typing import get_args

import numpy as np
import pytest
import scipy.ndimage
import skimage.feature
import skimage.filters
import skimage.morphology
from hypothesis import given, settings
from hypothesis import strategies as st

from hrvol.errors import InputError
from hrvol.features.filters import membrane
from hrvol.features.filters.bank import _backend, channel_names, classical_features, halo
from hrvol.features.filters.kernels import shifted
from hrvol.recipe.specs import ClassicalSpec, FilterName

FILTERS: tuple[FilterName, ...] = get_args(FilterName)
ALL = ClassicalSpec(filters=FILTERS, sigmas=(1, 2.5))
WEKA = ClassicalSpec()


def grey_image(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """An 8-bit image with structure at several scales, noise and both extremes."""
    rng = np.random.default_rng(seed)
    field = scipy.ndimage.gaussian_filter(rng.normal(size=shape), 3) * 8 + rng.normal(size=shape) * 0.3
    scaled = np.interp(field, (field.min(), field.max()), (0, 255))
    return np.rint(scaled).astype(np.uint8)


def unit(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float32) / np.float32(255)


def named(image: np.ndarray, spec: ClassicalSpec) -> dict[str, np.ndarray]:
    return dict(zip(channel_names(spec), classical_features(image, spec), strict=True))


def second_differences(image: np.ndarray) -> dict[str, np.ndarray]:
    rows, columns = np.gradient(image)
    matrix = np.moveaxis(np.array([np.gradient(rows), np.gradient(columns)]), (0, 1), (-2, -1)).astype(float)
    matrix[..., 1, 0] = matrix[..., 0, 1]
    smaller, larger = np.moveaxis(np.linalg.eigvalsh(matrix), -1, 0)
    off = matrix[..., 0, 1]
    return {
        "hessian_module": np.sqrt(matrix[..., 0, 0] ** 2 + off**2 + matrix[..., 1, 1] ** 2),
        "hessian_trace": np.trace(matrix, axis1=-2, axis2=-1),
        "hessian_determinant": matrix[..., 0, 0] * matrix[..., 1, 1] - off**2,
        "hessian_eigenvalue1": larger,
        "hessian_eigenvalue2": smaller,
    }


def published_channels(image: np.ndarray) -> dict[str, np.ndarray]:
    """The published default set, from an 8-bit image, by skimage and dense convolutions.

    Scale 0 works on the 8-bit image itself. Nothing wraps: skimage's Sobel filter converts integers to
    floating point in [0, 1], and np.gradient converts them to float64, in 0..255.
    """
    fraction = skimage.util.img_as_float32(image)
    # skimage's Sobel filter is twice the derivative.
    channels = {"original": image / 255, "sobel_0": skimage.filters.sobel(image) / 2}
    for name, value in second_differences(image).items():
        channels[f"{name}_0"] = value / (255**2 if name == "hessian_determinant" else 255)
    blurred = {}
    for sigma in (1, 2, 4, 8, 16):
        smooth = skimage.filters.gaussian(fraction.astype(float), 0.4 * sigma)
        blurred[sigma] = smooth
        channels |= {f"gaussian_{sigma}": smooth, f"sobel_{sigma}": skimage.filters.sobel(smooth) / 2}
        channels |= {f"{name}_{sigma}": value for name, value in second_differences(smooth).items()}
    for large in blurred:
        for small in blurred:
            if small < large:
                channels[f"difference_of_gaussians_{small}_{large}"] = blurred[small] - blurred[large]
    column = np.zeros((19, 19))
    column[:, 9] = 1
    turned = [np.rint(scipy.ndimage.rotate(column, 6 * turn)) for turn in range(30)]
    sums = np.array([scipy.ndimage.convolve(fraction.astype(float), kernel) for kernel in turned])
    projections = {
        "mean": np.mean,
        "maximum": np.max,
        "minimum": np.min,
        "sum": np.sum,
        "deviation": np.std,
        "median": np.median,
    }
    return channels | {f"membrane_{name}": project(sums, axis=0) for name, project in projections.items()}


@pytest.mark.parametrize("shape", [(70, 61), (20, 33)])
def test_default_set_is_the_published_one(shape: tuple[int, int]) -> None:
    image = grey_image(shape)
    expected = published_channels(image)
    assert channel_names(WEKA) == tuple(expected)
    assert len(expected) == 58
    for name, channel in named(unit(image), WEKA).items():
        # float32: what is a small difference of large sums is known to an ulp of the image.
        np.testing.assert_allclose(channel, expected[name], rtol=2e-5, atol=3e-7, err_msg=name)


def test_scale_zero_is_exact_in_eight_bit_images() -> None:
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8), (5, 256))
    channels = named(unit(ramp), ClassicalSpec(filters=("hessian",), sigmas=()))
    inner = slice(2, -2)
    assert not channels["hessian_trace_0"][:, inner].any()


@pytest.mark.parametrize("sigma", [1, 3, 4.2])
def test_discs_agree_with_rank_filters(sigma: float) -> None:
    image = grey_image((48, 52)) // 2 * 2
    radius = int(np.ceil(sigma))
    disc = skimage.morphology.disk(radius)
    rank = skimage.filters.rank
    wanted = ("mean", "median", "minimum", "maximum", "entropy")
    channels = named(unit(image), ClassicalSpec(filters=wanted, sigmas=(sigma,)))
    inner = (slice(radius, -radius),) * 2
    for name in ("median", "minimum", "maximum"):
        np.testing.assert_array_equal(
            np.rint(channels[f"{name}_{sigma}"] * 255)[inner], getattr(rank, name)(image, disc)[inner], name
        )
    np.testing.assert_array_equal(
        np.floor(channels[f"mean_{sigma}"] * 255 + 1e-3)[inner], rank.mean(image, disc)[inner]
    )
    for bins in (32, 64, 128):
        # Rank filters use all 256 values as bins: give them so many values.
        expected = rank.entropy(image // (256 // bins), disc)
        np.testing.assert_allclose(channels[f"entropy_{bins}_{sigma}"][inner], expected[inner], atol=1e-5)


def test_bilateral_agrees_with_rank_filter() -> None:
    image = grey_image((48, 52))
    channels = named(unit(image), ClassicalSpec(filters=("bilateral",)))
    inner = (slice(10, -10),) * 2
    for radius in (5, 10):
        for limit in (50, 100):
            disc = skimage.morphology.disk(radius)
            # The rank filter's limits are exclusive.
            expected = skimage.filters.rank.mean_bilateral(image, disc, s0=limit + 1, s1=limit + 1)
            found = np.floor(channels[f"bilateral_{radius}_{limit}"] * 255 + 1e-3)
            np.testing.assert_array_equal(found[inner], expected[inner])


def test_structure_agrees_with_skimage() -> None:
    image = unit(grey_image((40, 44)))
    channels = named(image, ClassicalSpec(filters=("structure",), sigmas=(2,)))
    tensor = skimage.feature.structure_tensor(image.astype(float), 2, mode="nearest")
    larger, smaller = skimage.feature.structure_tensor_eigenvalues(tensor)
    scale = larger.max() / channels["structure_eigenvalue1_2"].max()
    np.testing.assert_allclose(channels["structure_eigenvalue1_2"] * scale, larger, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(channels["structure_eigenvalue2_2"] * scale, smaller, rtol=1e-3, atol=1e-5)


def test_derivatives_of_a_wave() -> None:
    """A product of sines keeps its shape: its derivative of order n is its frequency to the power n."""
    frequency, sigma = 0.8, 2.0
    position = np.arange(80)
    wave = np.sin(frequency * position)
    image = (np.outer(wave, wave) / 2 + 0.5).astype(np.float32)
    channels = named(image, ClassicalSpec(filters=("derivatives",), sigmas=(sigma,)))
    inner = (slice(10, -10),) * 2
    slopes = {2: -np.sin(frequency * position), 3: -np.cos(frequency * position)}
    slopes |= {4: np.sin(frequency * position), 5: np.cos(frequency * position)}
    # The kernel stops at four deviations, which costs the highest order a per cent.
    for order, slope in slopes.items():
        size = (frequency * sigma) ** order * np.exp(-((frequency * sigma) ** 2) / 2)
        expected = np.outer(slope, slope) / 2 * size**2
        np.testing.assert_allclose(
            channels[f"derivative_{2 * order}_2"][inner], expected[inner], atol=0.02 * abs(expected).max()
        )


def test_neighbours_are_where_their_names_say() -> None:
    image = unit(grey_image((12, 14)))
    channels = named(image, ClassicalSpec(filters=("neighbours",), sigmas=(2,)))
    assert channels["neighbour_up_2"][5, 6] == image[3, 6]
    assert channels["neighbour_down_right_2"][5, 6] == image[7, 8]
    assert channels["neighbour_left_2"][5, 6] == image[5, 4]
    assert channels["neighbour_left_2"][5, 0] == image[5, 1], "the border mirrors"


@pytest.mark.parametrize("filters", [*((name,) for name in FILTERS), FILTERS, FILTERS[::-1]])
def test_names_fit_output(filters: tuple[FilterName, ...]) -> None:
    spec = ClassicalSpec(filters=filters, sigmas=(2.5, 1, 1))
    names = channel_names(spec)
    features = classical_features(unit(grey_image((30, 26))), spec)
    assert features.shape == (len(names), 30, 26)
    assert features.dtype == np.float32
    assert len(set(names)) == len(names)
    assert names[0] == "original"
    assert all(any(part in name for name in names) for part in ("_1", "_2.5")) or filters[0] in (
        "membrane",
        "bilateral",
    )


def test_order_of_channels_does_not_depend_on_the_recipe() -> None:
    image = unit(grey_image((24, 24)))
    turned = ClassicalSpec(filters=FILTERS[::-1], sigmas=(2.5, 1))
    assert channel_names(turned) == channel_names(ALL)
    np.testing.assert_array_equal(classical_features(image, turned), classical_features(image, ALL))


@pytest.mark.parametrize("sigmas", [(1, 4), ()])
@pytest.mark.parametrize("name", FILTERS)
def test_halo_is_exact(name: FilterName, sigmas: tuple[float, ...]) -> None:
    """What lies further than the halo changes nothing, to the bit; what lies at the halo does."""
    spec = ClassicalSpec(filters=(name,), sigmas=sigmas)
    reach, edge = halo(spec), 40
    rng = np.random.default_rng(1)
    # Levels on both sides of one half, so that every pixel counts for a median too.
    one = (rng.random((80, 60)) < 0.5).astype(np.float32) * 0.5 + 0.25
    other = one.copy()
    other[edge:] = rng.random((40, 60))
    difference = classical_features(one, spec) != classical_features(other, spec)
    rows = difference.any(axis=(0, 2))
    assert not rows[: edge - reach].any()
    assert rows[edge - reach]


@settings(max_examples=15, deadline=None)
@given(
    st.integers(1, 30),
    st.integers(1, 30),
    st.integers(0, 40),
    st.integers(0, 40),
    st.integers(0, 2**16),
)
def test_tile_equals_whole_beyond_halo(height: int, width: int, top: int, left: int, seed: int) -> None:
    spec = ClassicalSpec(filters=FILTERS, sigmas=(1, 2))
    reach = halo(spec)
    image = np.random.default_rng(seed).random((100, 100), dtype=np.float32)
    rows, columns = slice(top, top + height), slice(left, left + width)
    window = image[max(0, top - reach) : top + height + reach, max(0, left - reach) : left + width + reach]
    tile = classical_features(window, spec)
    inside = (slice(top - max(0, top - reach), None), slice(left - max(0, left - reach), None))
    tile = tile[:, *inside][:, :height, :width]
    np.testing.assert_array_equal(tile, classical_features(image, spec)[:, rows, columns])


def test_tile_equals_whole_for_the_default_set() -> None:
    image = unit(grey_image((150, 140)))
    reach = halo(WEKA)
    assert reach == 28
    whole = classical_features(image, WEKA)[:, 40:100, 50:100]
    tile = classical_features(image[40 - reach : 100 + reach, 50 - reach : 100 + reach], WEKA)
    np.testing.assert_array_equal(tile[:, reach:-reach, reach:-reach], whole)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**16))
def test_small_images_work(height: int, width: int, seed: int) -> None:
    image = np.random.default_rng(seed).random((height, width), dtype=np.float32)
    features = classical_features(image, ClassicalSpec(filters=FILTERS, sigmas=(1, 16)))
    assert features.shape[1:] == (height, width)
    assert np.isfinite(features).all()


@pytest.mark.parametrize("grey", [0.0, 0.3, 1.0])
def test_constant_image_gives_constant_channels(grey: float) -> None:
    features = classical_features(np.full((40, 37), grey, np.float32), ALL)
    assert np.isfinite(features).all()
    assert (features == features[:, :1, :1]).all()
    channels = dict(zip(channel_names(ALL), features[:, 0, 0], strict=True))
    for name in ("original", "gaussian_1", "mean_2.5", "median_1", "bilateral_5_50", "neighbour_up_1"):
        assert channels[name] == pytest.approx(grey, abs=1 / 255)
    for name in ("sobel_0", "hessian_module_1", "entropy_32_1", "structure_eigenvalue1_1"):
        assert channels[name] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("sigma", [1e-9, 0.01, 0.5, 64])
def test_extreme_scales_stay_finite(sigma: float) -> None:
    image = np.random.default_rng(0).integers(0, 2, (20, 20)).astype(np.float32)
    features = classical_features(image, ClassicalSpec(filters=FILTERS, sigmas=(sigma,)))
    assert np.isfinite(features).all()


@settings(max_examples=10, deadline=None)
@given(st.integers(5, 40), st.integers(5, 40), st.sampled_from(["up_down", "left_right"]), st.integers(0, 99))
def test_flipped_image_gives_flipped_features(height: int, width: int, flip: str, seed: int) -> None:
    image = unit(grey_image((height, width), seed))
    axis = 0 if flip == "up_down" else 1
    ends = flip.split("_")
    plain = named(image, ALL)
    mirrored = named(np.flip(image, axis), ALL)
    for name, channel in mirrored.items():
        if name.startswith("membrane"):
            continue  # kernels of even side have their centre half a pixel off
        source, sign = name, 1
        if name.startswith("neighbour"):
            source = name.translate({}).replace(ends[0], "*").replace(ends[1], ends[0]).replace("*", ends[1])
        if name.startswith(("derivative_6", "derivative_10")):
            sign = -1  # odd along each axis
        expected = sign * np.flip(plain[source], axis)
        np.testing.assert_allclose(channel, expected, atol=2e-5, rtol=1e-4, err_msg=name)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_output_is_float32_and_input_untouched(dtype: type) -> None:
    image = unit(grey_image((20, 20))).astype(dtype)
    before = image.copy()
    assert classical_features(image, ALL).dtype == np.float32
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (np.zeros((8, 8), np.uint8), "uint8"),
        (np.zeros((2, 8, 8), np.float32), r"\(2, 8, 8\)"),
        (np.zeros((0, 8), np.float32), r"\(0, 8\)"),
        (np.full((8, 8), np.nan, np.float32), "NaN"),
        ([[0.0]], "list"),
    ],
)
def test_unfit_images_are_refused(image: object, found: str) -> None:
    with pytest.raises(InputError, match=found):
        classical_features(image, WEKA)


def test_backend_follows_the_array(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = {name: ModuleType(name) for name in ("cupy", "cupyx", "cupyx.scipy", "cupyx.scipy.ndimage")}
    modules["cupyx"].scipy = modules["cupyx.scipy"]  # type: ignore[attr-defined]
    modules["cupyx.scipy"].ndimage = modules["cupyx.scipy.ndimage"]  # type: ignore[attr-defined]
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    device_array = type("ndarray", (), {"__module__": "cupy"})()
    assert _backend(device_array) == (modules["cupy"], modules["cupyx.scipy.ndimage"])
    assert _backend(np.zeros(1)) == (np, scipy.ndimage)


@pytest.mark.parametrize("shape", [(1, 1), (23, 34)])
def test_sums_of_runs_are_those_of_the_pixels_of_each_line(shape: tuple[int, int]) -> None:
    reach = membrane.line_reach()

    def pixel_by_pixel(padded: np.ndarray) -> np.ndarray:
        sums = [sum(shifted(padded, reach, *pixel) for pixel in line) for line in membrane._line_taps()]
        return np.stack(sums)

    eight_bits = np.pad(grey_image(shape).astype(np.float32), reach, mode="symmetric")
    sums = membrane._line_sums(np, eight_bits, reach)
    assert sums.dtype == np.float32
    np.testing.assert_array_equal(sums, pixel_by_pixel(eight_bits))
    fractions = np.random.default_rng(0).random(eight_bits.shape, np.float32)
    np.testing.assert_allclose(
        membrane._line_sums(np, fractions, reach), pixel_by_pixel(fractions), rtol=1e-6
    )


def test_lines_are_their_runs() -> None:
    for line, (axis, runs) in zip(membrane._line_taps(), membrane._line_runs(), strict=True):
        step = (1, 0) if axis == 0 else (0, 1)
        pixels = [(y + i * step[0], x + i * step[1]) for y, x, count in runs for i in range(count)]
        assert sorted(pixels) == sorted(line)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 16, 29, 30, 33])
def test_ranked_values_are_those_of_a_sort(count) -> None:
    images = np.random.default_rng(count).integers(0, 5, (count, 4, 50)).astype(np.float32)
    ranks = tuple(sorted({0, count // 3, count // 2, count - 1}))
    before = images.copy()
    found = membrane._ranked(np, images, ranks)
    np.testing.assert_array_equal(np.stack(found), np.sort(images, axis=0)[list(ranks)])
    np.testing.assert_array_equal(images, before)


@pytest.mark.gpu
def test_gpu_agrees_with_cpu() -> None:
    cupy = pytest.importorskip("cupy")
    image = unit(grey_image((80, 90)))
    features = classical_features(cupy.asarray(image), ALL)
    assert isinstance(features, cupy.ndarray)
    np.testing.assert_allclose(features.get(), classical_features(image, ALL), rtol=1e-4, atol=2e-5)
