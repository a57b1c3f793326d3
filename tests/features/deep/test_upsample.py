from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from hrvol.errors import InputError, UsageError
from hrvol.features.deep.backbone import Tokens
from hrvol.features.deep.image_tokens import view_groups
from hrvol.features.deep.layout import layout_of
from hrvol.features.deep.upsample import Linear, _run, project, upsample
from hrvol.features.deep.views import views_of
from hrvol.recipe.specs import DeepSpec


class PatchMean:
    """A network whose token is the mean of its patch, and nothing else: geometry alone."""

    patch = 14
    device = torch.device("cpu")

    def block_numbers(self, block):
        return (1,)

    def tokens(self, images, *, stride, blocks, attention, head_map, positions):
        means = torch.nn.functional.avg_pool2d(images, self.patch, stride or self.patch)
        return Tokens(means, means if attention else None, means if head_map else None)


WAYS = {
    "interleaved 1": DeepSpec(offsets=1),
    "interleaved 2": DeepSpec(offsets=2),
    "interleaved 4": DeepSpec(offsets=4),
    "interleaved 7": DeepSpec(offsets=7),
    "strided 4": DeepSpec(stride=4),
    "strided 7": DeepSpec(stride=7),
    "strided 4, shifts": DeepSpec(stride=4, shifts=(1, 2)),
    "interleaved 2, shifts, flips": DeepSpec(offsets=2, shifts=(1,), flips=True),
    "interleaved 4, flips": DeepSpec(offsets=4, flips=True),
    "interleaved 4, rotations": DeepSpec(offsets=4, rotations=True),
    "interleaved 3, flips, rotations": DeepSpec(offsets=3, flips=True, rotations=True),
}


def edge_error(spec, size, column, axis=1):
    """Signed distance in px between a step edge and where the features cross the middle."""
    image = torch.zeros(28, size)
    image[:, column:] = 1
    feature = upsample(PatchMean(), image if axis == 1 else image.T, spec).features[0]
    profile = (feature if axis == 1 else feature.T)[14].numpy().astype(np.float64)
    high = int(np.argmax(profile >= 0.5))
    low = profile[high - 1] if high else 0.0
    part = (0.5 - low) / (profile[high] - low)
    return high - 0.5 + part - column


def test_mirror_images_that_share_their_columns_are_spread_together():
    def groups(way):
        layout = layout_of(PatchMean.patch, WAYS[way], (60, 70))
        return [len(rows) for rows, _ in view_groups(layout, WAYS[way])]

    assert groups("interleaved 4, flips") == [2, 2]
    assert groups("interleaved 4") == [1]
    assert groups("interleaved 4, rotations") == [2, 2]
    assert groups("interleaved 3, flips, rotations") == [4, 4]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("axis", [0, 1])
def test_aligned_puts_a_step_edge_where_it_is_over_the_whole_width(way, axis):
    # Native tokens without interleaving cannot do better than 1.2 px: an edge inside a patch leaves one
    # grey token, and a straight line from it to the next white one crosses the middle elsewhere.
    bound, rim = (1.25, 14) if way == "interleaved 1" else (0.5, 7)
    size = 200 if "shifts" in way else 518
    columns = range(rim, size - rim, 9)  # 9 and 14 have no common divisor: every place in a patch
    errors = np.array([edge_error(WAYS[way], size, column, axis) for column in columns])
    assert np.abs(errors).max() <= bound


def test_stretch_displaces_towards_the_borders():
    spec = DeepSpec(stride=4, placement="stretch", interpolation="bilinear")
    errors = [edge_error(spec, 518, column) for column in (30, 259, 488)]
    assert abs(errors[0]) > 2
    assert abs(errors[2]) > 2
    assert abs(errors[1]) < 0.5


@pytest.mark.parametrize("shape", [(1, 1), (3, 40), (13, 14), (30, 101)])
@pytest.mark.parametrize(
    "way",
    [
        "interleaved 4",
        "strided 4, shifts",
        "interleaved 2, shifts, flips",
        "interleaved 3, flips, rotations",
    ],
)
def test_any_image_size_gives_one_finite_vector_per_pixel(shape, way):
    result = upsample(PatchMean(), torch.rand(shape), WAYS[way], attention=True, head_map="q")
    assert result.features.shape == result.attention.shape == result.head_map.shape == (1, *shape)
    assert torch.isfinite(result.features).all()


SIDES = st.integers(20, 60)


@settings(max_examples=15, deadline=None)
@given(SIDES, SIDES, st.sampled_from(list(WAYS)))
def test_a_mirrored_image_gives_mirrored_features_with_flips(height, width, way):
    spec = WAYS[way].model_copy(update={"flips": True})
    image = torch.rand(height, width, generator=torch.Generator().manual_seed(height))
    there = upsample(PatchMean(), image, spec).features
    back = upsample(PatchMean(), image.flip(-1), spec).features.flip(-1)
    torch.testing.assert_close(there, back)


class Lopsided(PatchMean):
    """Tokens tell directions in the patch, and where in the window it is."""

    def tokens(self, images, *, stride, **options):
        kernel = torch.rand(3, 1, 14, 14, generator=torch.Generator().manual_seed(3))
        found = F.conv2d(images, kernel, stride=stride or self.patch)
        rows, columns = (torch.arange(count) for count in found.shape[2:])
        return Tokens(found + rows[:, None] * 2 + columns**2, None, None)


@settings(max_examples=15, deadline=None)
@given(
    st.integers(20, 60), st.integers(20, 60), st.sampled_from(list(WAYS)), st.integers(1, 3), st.booleans()
)
def test_a_turned_image_gives_turned_features_with_rotations(height, width, way, quarters, flips):
    spec = WAYS[way].model_copy(update={"rotations": True, "flips": flips})
    image = torch.rand(height, width, generator=torch.Generator().manual_seed(height))
    there = upsample(Lopsided(), image, spec).features
    back = upsample(Lopsided(), image.rot90(quarters), spec).features.rot90(-quarters, (1, 2))
    torch.testing.assert_close(there, back, rtol=1e-4, atol=1e-3)
    if flips:
        back = upsample(Lopsided(), image.flip(0), spec).features.flip(1)
        torch.testing.assert_close(there, back, rtol=1e-4, atol=1e-3)


def test_without_rotations_a_turned_image_gives_other_features():
    image = torch.rand(40, 40, generator=torch.Generator().manual_seed(0))
    there = upsample(Lopsided(), image, DeepSpec(offsets=2)).features
    back = upsample(Lopsided(), image.rot90(), DeepSpec(offsets=2)).features.rot90(-1, (1, 2))
    assert (there - back).abs().max() > 1


def test_batches_hold_windows_of_one_shape():
    """On a GPU some views of an oblong image are oblong the other way."""
    shapes = []

    class Elsewhere(PatchMean):
        device = SimpleNamespace(type="cuda")

        def tokens(self, images, **options):
            shapes.append(tuple(images.shape))
            return super().tokens(images, **options)

    windows = [torch.full(shape, float(i)) for i, shape in enumerate([(28, 42)] * 5 + [(42, 28)] * 3)]
    wanted = {"attention": False, "head_map": None}
    found = list(_run(Elsewhere(), windows, DeepSpec(), 4, **wanted))
    assert shapes == [(4, 1, 28, 42), (1, 1, 28, 42), (3, 1, 42, 28)]
    assert [tokens.features.shape[2:] for tokens in found] == [(2, 3)] * 5 + [(3, 2)] * 3
    assert [float(tokens.features.mean()) for tokens in found] == list(range(8))


def test_a_scaled_input_stays_registered():
    for scale in (0.5, 2.0):
        errors = [
            edge_error(DeepSpec(offsets=4, input_scale=scale), 200, column) for column in range(30, 170, 7)
        ]
        assert np.abs(errors).max() <= 0.5 / min(scale, 1)


class Three(PatchMean):
    """Three channels a token, so that tokens have a direction."""

    def tokens(self, images, **options):
        found = super().tokens(images, **options)
        means = found.features
        return Tokens(torch.cat([means, means**2, means.sin()], dim=1), found.attention, None)


@pytest.mark.parametrize("spec", [DeepSpec(offsets=2), DeepSpec(stride=4, shifts=(1,), placement="stretch")])
def test_a_linear_map_commutes_with_spreading(spec):
    generator = torch.Generator().manual_seed(1)
    linear = Linear(torch.randn(5, 3, generator=generator), torch.randn(5, generator=generator))
    image = torch.rand(60, 61, generator=generator)
    before = upsample(Three(), image, spec, linear=linear).features
    plain = upsample(Three(), image, spec).features
    after = torch.einsum("kc,cyx->kyx", linear.weight, plain) + linear.bias[:, None, None]
    torch.testing.assert_close(before, after, atol=1e-5, rtol=1e-5)


UNIT = [
    DeepSpec(offsets=1, interpolation="nearest"),
    DeepSpec(offsets=2, flips=True),
    DeepSpec(offsets=2, flips=True, rotations=True),
    DeepSpec(stride=4, shifts=(1,), placement="stretch"),
]


@pytest.mark.parametrize("spec", UNIT)
def test_unit_scales_tokens_before_they_are_spread(spec):
    class Scaled(Three):
        def tokens(self, images, **options):
            found = super().tokens(images, **options)
            return Tokens(F.normalize(found.features, dim=1), found.attention, None)

    image = torch.rand(60, 61, generator=torch.Generator().manual_seed(2))
    found = upsample(Three(), image, spec, unit=True, attention=True)
    expected = upsample(Scaled(), image, spec, attention=True)
    torch.testing.assert_close(found.features, expected.features)
    assert torch.equal(found.attention, expected.attention)  # which has no direction
    lengths = found.features.norm(dim=0)
    assert lengths.max() <= 1 + 1e-6
    # Averages of directions are shorter than 1: only tokens themselves are of length 1.
    assert (lengths.min() > 1 - 1e-6) == (spec == UNIT[0])


@pytest.mark.parametrize("spec", UNIT)
def test_a_linear_map_of_unit_tokens_commutes_too(spec):
    generator = torch.Generator().manual_seed(1)
    linear = Linear(torch.randn(5, 3, generator=generator), torch.randn(5, generator=generator))
    image = torch.rand(60, 61, generator=generator)
    before = upsample(Three(), image, spec, unit=True, linear=linear).features
    plain = upsample(Three(), image, spec, unit=True).features
    after = torch.einsum("kc,cyx->kyx", linear.weight, plain) + linear.bias[:, None, None]
    torch.testing.assert_close(before, after, atol=1e-5, rtol=1e-5)
    without = upsample(Three(), image, spec, linear=linear).features
    assert not torch.allclose(before, without, atol=0.1)


def test_a_token_of_nothing_stays_nothing():
    result = upsample(Three(), torch.zeros(28, 28), DeepSpec(offsets=2), unit=True)
    assert (result.features == 0).all()


@pytest.mark.parametrize("way", ["interleaved 4", "strided 4, shifts"])
def test_batches_and_buffers_change_nothing(way):
    image = torch.rand(50, 64)
    expected = upsample(PatchMean(), image, WAYS[way], batch_size=1).features
    torch.testing.assert_close(upsample(PatchMean(), image, WAYS[way], batch_size=16).features, expected)
    buffer = torch.full((50, 64, 4), -1.0)
    upsample(PatchMean(), image, WAYS[way], out=buffer[:, :, 1:2])
    torch.testing.assert_close(buffer[:, :, 1], expected[0])
    assert (buffer[:, :, 0] == -1).all()
    assert (buffer[:, :, 2:] == -1).all()


def test_a_projection_of_pixels_is_the_matrix_product():
    generator = torch.Generator().manual_seed(3)
    features = torch.rand(4, 9, 7, generator=generator)
    linear = Linear(torch.randn(3, 4, generator=generator), torch.randn(3, generator=generator))
    found = project(features, linear)
    expected = torch.einsum("kc,cyx->kyx", linear.weight, features) + linear.bias[:, None, None]
    torch.testing.assert_close(found, expected)
    assert found.permute(1, 2, 0).is_contiguous()
    by_pixel = features.permute(1, 2, 0).contiguous().permute(2, 0, 1)  # however they lie in memory
    torch.testing.assert_close(project(by_pixel, linear), expected)


def test_views_of_the_published_settings():
    assert len(views_of(DeepSpec(stride=4, shifts=(1, 2)))) == 17
    assert len(views_of(DeepSpec(stride=4, shifts=(1, 2), flips="published"))) == 68
    assert len(views_of(DeepSpec())) == 1


def test_errors():
    with pytest.raises(InputError, match="at least 14 px a side, found 13"):
        upsample(PatchMean(), torch.rand(13, 50), DeepSpec(stride=4, placement="stretch"))
    with pytest.raises(InputError, match=r"\(Y, X\)"):
        upsample(PatchMean(), torch.rand(2, 50, 50), DeepSpec())
    with pytest.raises(ValidationError, match="stretch"):
        DeepSpec(placement="stretch", offsets=4)


@pytest.mark.weights
@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("s14_none", DeepSpec(placement="stretch", interpolation="nearest")),
        ("s4_none", DeepSpec(stride=4, placement="stretch", interpolation="nearest")),
        ("s4_moore12", DeepSpec(stride=4, shifts=(1, 2), placement="stretch", interpolation="nearest")),
    ],
)
def test_parity_with_the_reference_code(vits14, data_dir, name, spec):
    with np.load(data_dir / "hrdv2_features" / f"{name}.npz") as reference:
        image = torch.from_numpy(reference["image"].astype(np.float32) / 255)
        result = upsample(vits14, image, spec, head_map="o", batch_size=17)
        at = np.ix_(reference["rows"], reference["cols"])
        for found, expected, bound in (
            (result.features, reference["features"].astype(np.float32), 2e-3),
            (result.head_map, reference["output_attention"], 1e-4),
        ):
            sampled = found.numpy()[:, at[0], at[1]]
            assert np.linalg.norm(sampled - expected) < bound * np.linalg.norm(expected)


@pytest.mark.weights
def test_the_real_network_gives_the_same_bits_in_any_number_of_threads(vits14, monkeypatch):
    from concurrent.futures import ThreadPoolExecutor

    from hrvol.features.deep import upsample as module

    image = torch.rand(70, 84, generator=torch.Generator().manual_seed(0))
    results = []
    for threads in (1, 3):
        pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
        monkeypatch.setattr(module, "_pool", lambda pool=pool: pool)
        results.append(upsample(vits14, image, DeepSpec(block=3, offsets=2), batch_size=1).features)
        pool.shutdown()
    assert torch.equal(*results)


@pytest.mark.weights
def test_a_block_that_is_not_there(vits14):
    with pytest.raises(UsageError, match=r"deep\.block: found 13, expected at most 12"):
        upsample(vits14, torch.rand(28, 28), DeepSpec(block=13))
