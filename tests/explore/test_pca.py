"""Features as colours: one palette for a whole picture, exact although projected before it is spread."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.image import imread
from see_data import ONE_TILE, RECIPE, discs, use

from hrvol.errors import InputError, OutputExistsError, UsageError
from hrvol.explore import pca
from hrvol.explore.pca import Palette, choose_planes, pca_picture
from hrvol.features.featuriser import load_featuriser
from hrvol.volume.volume import open_volume

IMAGE, _ = discs()
OTHER, _ = discs(((30, 130, 20),), seed=7)
STACK = np.stack([IMAGE, OTHER, IMAGE[::-1], OTHER[:, ::-1], IMAGE])


@pytest.fixture
def network(monkeypatch):
    return use(monkeypatch)


@pytest.fixture
def drawn(network, monkeypatch):
    """Rows that pictures were drawn from."""
    rows = []

    def keep(path, found):
        path.touch()
        rows.extend(found)

    monkeypatch.setattr(pca, "draw_components", keep)
    return rows


@given(seed=st.integers(0, 999), cut=st.integers(1, 7))
@settings(max_examples=30, deadline=None)
def test_maps_of_groups_add_up_to_the_projection(seed, cut):
    rng = np.random.default_rng(seed)
    samples = (rng.normal(size=(300, 8)) * np.logspace(-2, 2, 8) + rng.normal(size=8)).astype(np.float32)
    palette = Palette.fit(samples)
    maps = palette.maps({"deep": slice(0, cut), "classical": slice(cut, 8)})
    parts = torch.from_numpy(samples)
    found = sum(
        torch.nn.functional.linear(parts[:, columns], maps[name].weight, maps[name].bias)
        for name, columns in (("deep", slice(0, cut)), ("classical", slice(cut, 8)))
    )
    np.testing.assert_allclose(found.numpy(), palette.projection(samples), atol=1e-3)


def test_a_palette_leaves_one_percent_at_either_end():
    samples = np.random.default_rng(0).normal(size=(5000, 6)).astype(np.float32)
    palette = Palette.fit(samples)
    colours = palette.colours(palette.projection(samples).T[:, None])
    assert colours.shape == (1, 5000, 3)
    for end in (0, 255):
        assert np.abs((colours == end).mean(axis=(0, 1)) - 0.012).max() < 0.004
    # In proportion between them, and in the order of the components.
    green = palette.projection(samples)[:, 1]
    middle = (palette.low[1] + palette.high[1]) / 2
    assert ((colours[0, :, 1] > 127) == (green > middle)).mean() > 0.99


def test_constant_features_have_a_colour_too():
    palette = Palette.fit(np.ones((50, 4), np.float32))
    assert np.isfinite([palette.low, palette.high]).all()
    assert palette.colours(np.zeros((3, 2, 2), np.float32)).dtype == np.uint8


@given(depth=st.integers(1, 400), count=st.integers(1, 12))
@settings(max_examples=50, deadline=None)
def test_planes_are_spaced_evenly(depth, count):
    planes = choose_planes(open_volume(np.zeros((depth, 2, 2), np.uint8)), count)
    assert len(planes) == len(set(planes)) == min(depth, count)
    assert 0 <= planes[0] <= planes[-1] < depth
    if len(planes) > 1:
        assert np.ptp(np.diff(planes)) <= 1
        assert abs(planes[0] - (depth - 1 - planes[-1])) <= 1


def test_planes_may_be_said(drawn, tmp_path):
    report = pca_picture([STACK], tmp_path / "p.png", planes=[3, 1, 3], recipe=RECIPE)
    assert [z for _, z in report.planes] == [3, 1]
    assert [row.name for row in drawn] == [
        "ndarray array 5x130x170, plane 3",
        "ndarray array 5x130x170, plane 1",
    ]
    np.testing.assert_allclose(drawn[1].image, OTHER / 255, atol=1e-6)
    assert 0 < sum(report.explained) <= 1
    assert list(report.explained) == sorted(report.explained, reverse=True)


def test_a_colour_means_the_same_in_all_planes_of_all_volumes(drawn, tmp_path):
    report = pca_picture([STACK, IMAGE, OTHER], tmp_path / "p.png", planes=[0, 1, 4], recipe=RECIPE)
    assert [z for _, z in report.planes] == [0, 1, 4, 0, 0]
    first, other, again, alone, other_alone = (row.colours for row in drawn)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, alone)
    np.testing.assert_array_equal(other, other_alone)
    assert (first != other).any()


def test_colours_are_those_of_the_features_projected_after_spreading(drawn, tmp_path, monkeypatch):
    kept = []
    fit = Palette.fit
    monkeypatch.setattr(Palette, "fit", lambda samples: kept.append(fit(samples)) or kept[0])
    pca_picture([IMAGE], tmp_path / "p.png", recipe=ONE_TILE)
    featuriser = load_featuriser(ONE_TILE.features)
    features = featuriser.upsampled(IMAGE.astype(np.float32) / 255, unit=True).features.numpy()
    components = kept[0].projection(features.reshape(len(features), -1).T).T.reshape(3, *IMAGE.shape)
    assert np.abs(kept[0].colours(components).astype(int) - drawn[0].colours).max() <= 1
    assert drawn[0].attention is None


@pytest.mark.parametrize("kind", ["deep", "hybrid"])
def test_attention_is_the_mean_over_heads_and_changes_no_colour(kind, drawn, tmp_path):
    spec = ONE_TILE.with_(**{"features.kind": kind, "features.classical.sigmas": [1]})
    for attention in (False, True):
        pca_picture([IMAGE], tmp_path / f"{attention}.png", recipe=spec, attention=attention)
    heads = load_featuriser(spec.features).upsampled(IMAGE.astype(np.float32) / 255, attention=True).attention
    np.testing.assert_allclose(drawn[1].attention, heads.numpy().mean(axis=0), rtol=1e-4)
    assert np.abs(drawn[0].colours.astype(int) - drawn[1].colours).max() <= 1


def test_tiles_are_put_where_they_are(drawn, tmp_path, monkeypatch):
    kept = []
    fit = Palette.fit
    monkeypatch.setattr(Palette, "fit", lambda samples: kept.append(fit(samples)) or kept[0])
    for number, recipe in enumerate((ONE_TILE, RECIPE)):
        pca_picture([IMAGE], tmp_path / f"{number}.png", recipe=recipe, attention=True)
    whole, cut = (row.colours.astype(float) / 255 for row in drawn)
    assert np.abs(whole - cut).mean() < 0.1
    assert np.corrcoef(drawn[0].attention.ravel(), drawn[1].attention.ravel())[0, 1] > 0.9


def test_what_features_say_of_the_place_in_a_tile_is_taken_off(drawn, network, tmp_path):
    network.drift = 0.3
    image = np.tile(IMAGE, (2, 2))
    steps = []
    for degree in (0, 6):
        recipe = RECIPE.with_(**{"cluster.position_degree": degree})
        pca_picture([image], tmp_path / f"{degree}.png", recipe=recipe)
        border = RECIPE.tiles.core * np.arange(1, len(image) // RECIPE.tiles.core + 1)
        jumps = np.abs(np.diff(drawn[-1].colours.astype(int), axis=0)).mean(axis=(1, 2))
        steps.append(jumps[border - 1].mean() / np.delete(jumps, border - 1).mean())
    left, taken_off = steps
    assert left > 2 * taken_off


def test_no_more_than_a_tile_is_seen_at_once(drawn, network, tmp_path):
    pca_picture([IMAGE], tmp_path / "p.png", recipe=RECIPE, attention=True)
    side = RECIPE.tiles.core + 2 * RECIPE.tiles.overlap
    assert max(max(shape) for shape in network.seen) <= side + 2 * network.patch


def test_the_picture_is_written_whole(network, tmp_path):
    path = tmp_path / "p.png"
    pca_picture([STACK], path, planes=2, attention=True, recipe=RECIPE)
    assert imread(path).std() > 0.1
    with pytest.raises(OutputExistsError, match="exists already"):
        pca_picture([STACK], path, recipe=RECIPE)
    pca_picture([IMAGE], path, overwrite=True, recipe=RECIPE)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("volumes", "options", "message"),
    [
        ([], {}, "no volume"),
        ([STACK], {"planes": [5]}, "found plane 5, expected 0 <= z < 5"),
        ([STACK], {"planes": []}, "found none"),
        ([STACK], {"planes": 0}, "found 0"),
        ([IMAGE], {"attention": True, "recipe": "classical"}, "classical features have none"),
        ([IMAGE] * 101, {}, "101 planes to draw, expected at most 100"),
    ],
)
def test_what_makes_no_sense_is_refused_before_the_work(network, tmp_path, volumes, options, message):
    with pytest.raises(UsageError, match=message):
        pca_picture(volumes, tmp_path / "p.png", **{"recipe": RECIPE, **options})
    assert network.seen == []
    assert not list(tmp_path.iterdir())


def test_a_volume_of_one_grey_value_is_refused_but_not_an_empty_plane(drawn, tmp_path):
    padded = STACK.copy()
    padded[0] = 0
    pca_picture([padded], tmp_path / "p.png", planes=[0, 1], recipe=RECIPE)
    with pytest.raises(InputError, match="one grey value in every plane"):
        pca_picture([IMAGE, np.zeros_like(STACK)], tmp_path / "q.png", recipe=RECIPE)
