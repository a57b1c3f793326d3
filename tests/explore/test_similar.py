"""Points looked for in other images: similarity maps, matches, and which planes are searched."""

import json

import numpy as np
import pytest
import zarr
from matplotlib.image import imread
from see_data import DISCS, ONE_TILE, RECIPE, discs, use

from hrvol.errors import InputError, OutputExistsError, UsageError
from hrvol.explore import similar
from hrvol.explore.planes import unit_windows
from hrvol.explore.similar import find_similar
from hrvol.recipe.specs import IntensitySpec
from hrvol.volume.volume import open_volume

IMAGE, INSIDE = discs()
OTHER, ELSEWHERE = discs(((30, 130, 20),), seed=7)
POINT = DISCS[0][:2]


@pytest.fixture
def network(monkeypatch):
    return use(monkeypatch)


@pytest.mark.parametrize("point", [POINT, DISCS[1][:2], (129, 169)])
def test_a_point_is_most_like_itself_whatever_tile_it_is_in(network, point):
    report = find_similar(IMAGE, [point], recipe=RECIPE)
    (target,) = report.targets
    best = target.matches[0][0]
    assert (best.y, best.x) == point
    assert best.similarity == pytest.approx(1, abs=1e-6)
    assert target.heat[point] == best.similarity
    assert target.heat.shape == IMAGE.shape
    assert target.heat.min() >= -1
    np.testing.assert_allclose(report.image, IMAGE / 255, atol=1e-6)


def test_the_same_thing_is_found_in_another_image(network):
    report = find_similar(IMAGE, [POINT, (5, 5)], [OTHER], top=3, recipe=RECIPE)
    (target,) = report.targets
    (disc, *_), (ground, *_) = target.matches
    assert ELSEWHERE[disc.y, disc.x]
    assert not ELSEWHERE[ground.y, ground.x]
    assert target.heat[ELSEWHERE].mean() > target.heat[~ELSEWHERE].mean() + 0.3
    for matches in target.matches:
        assert len(matches) <= 3
        assert list(matches) == sorted(matches, key=lambda match: -match.similarity)


def test_matches_are_apart(network):
    wide = np.tile(IMAGE, (1, 3))  # 510 px, a twentieth of which is 25.5
    for image, apart, said in ((IMAGE, 3, 3), (IMAGE, 20, 20), (IMAGE, 14, None), (wide, 25, None)):
        report = find_similar(image, [POINT], top=50, apart=said, recipe=RECIPE)
        where = np.array([(m.y, m.x) for m in report.targets[0].matches[0]])
        away = np.abs(where[:, None] - where[None]).max(axis=-1)
        assert away[~np.eye(len(where), dtype=bool)].min() > apart


def test_no_more_than_a_tile_is_seen_at_once(network):
    find_similar(IMAGE, [POINT], [OTHER], recipe=RECIPE)
    side = RECIPE.tiles.core + 2 * RECIPE.tiles.overlap
    assert max(max(shape) for shape in network.seen) <= side + 2 * network.patch
    assert max(IMAGE.shape) > side + 2 * network.patch


def test_tiles_agree_about_a_thing_that_both_see(network):
    cut, uncut = (find_similar(IMAGE, [POINT], recipe=r).targets[0].heat for r in (RECIPE, ONE_TILE))
    assert np.abs(cut - uncut).mean() < 0.05
    assert np.corrcoef(cut.ravel(), uncut.ravel())[0, 1] > 0.95


def test_a_thing_is_as_like_at_another_place_in_the_tile(network):
    network.drift = 1.0
    image = np.tile(IMAGE, (2, 2))
    again = (POINT[0] + IMAGE.shape[0], POINT[1])
    heats = [
        find_similar(image, [POINT], recipe=RECIPE.with_(**{"cluster.position_degree": degree}))
        .targets[0]
        .heat
        for degree in (0, 2)
    ]
    left, taken_off = (heat[again] for heat in heats)
    assert left < 0.8
    assert taken_off > 0.95
    for heat in heats:
        assert heat[POINT] == pytest.approx(1, abs=1e-6)


def test_the_figures_are_plain_json(network):
    said = find_similar(IMAGE, [POINT, (5, 6)], [OTHER, IMAGE], top=2, recipe=RECIPE).to_dict()
    assert json.loads(json.dumps(said, allow_nan=False)) == said
    assert said["points"][1] == {"point": 2, "y": 5, "x": 6}
    assert [len(target["matches"]) for target in said["targets"]] == [4, 4]
    assert said["targets"][1]["matches"][2] == {"point": 2, "rank": 1, "y": 5, "x": 6, "similarity": 1.0}


STACK = np.stack([OTHER, IMAGE, OTHER[::-1]])


def planes_of(report):
    return report.plane, [target.plane for target in report.targets]


def test_planes_are_those_of_the_point_unless_said(network):
    assert planes_of(find_similar(STACK, [(1, *POINT)], recipe=RECIPE)) == (1, [1])
    assert planes_of(find_similar(STACK, [POINT], planes=[1], recipe=RECIPE)) == (1, [1])
    assert planes_of(find_similar(STACK, [(1, *POINT)], planes=[0, 2], recipe=RECIPE)) == (1, [0, 2])
    assert planes_of(find_similar(STACK, [(1, *POINT)], [OTHER, STACK], recipe=RECIPE)) == (1, [0, 1])
    assert planes_of(find_similar(IMAGE, [POINT], [STACK], planes=[2], recipe=RECIPE)) == (0, [2])
    inside = find_similar(STACK, [(1, *POINT)], recipe=RECIPE).targets[0]
    np.testing.assert_array_equal(inside.heat, find_similar(IMAGE, [POINT], recipe=RECIPE).targets[0].heat)


@pytest.mark.parametrize(
    ("image", "points", "options", "message"),
    [
        (IMAGE, [], {}, "no point"),
        (IMAGE, [(130, 0)], {}, r"a point at z=0, y=130, x=0, expected it inside 130 x 170"),
        (IMAGE, [(0, -1)], {}, "x=-1"),
        (IMAGE, [(2, 0, 0)], {}, "z=2"),
        (IMAGE, [(1, 2, 3, 4)], {}, "of one plane"),
        (STACK, [(0, 1, 1), (1, 1, 1)], {}, "of one plane"),
        (STACK, [(3, 1, 1)], {}, "inside 3 x 130 x 170"),
        (STACK, [(1, 1)], {}, "stack of 3 planes.*--at z,y,x"),
        (IMAGE, [(1, 1)], {"targets": [STACK]}, "stack of 3 planes.*--plane z"),
        (IMAGE, [(1, 1)], {"targets": [STACK], "planes": [3]}, "found plane 3"),
        (IMAGE, [(1, 1)], {"recipe": "classical"}, "classical features are not compared"),
        (IMAGE, [(1, 1)], {"top": 0}, "found top 0"),
        (IMAGE, [(1, 1)], {"picture": "nowhere/at/all.png"}, "no such folder"),
        (IMAGE, [(1, 1)], {"picture": "heat.jpg"}, r"found \.jpg, expected \.png"),
    ],
)
def test_what_makes_no_sense_is_refused_before_the_work(network, image, points, options, message):
    with pytest.raises(UsageError, match=message):
        find_similar(image, points, **{"recipe": RECIPE, **options})
    assert network.seen == []


def test_images_of_one_grey_value_are_refused(network):
    flat = np.full((60, 60), 9, np.uint8)
    for image, targets in ((flat, []), (IMAGE, [flat])):
        with pytest.raises(InputError, match="one grey value"):
            find_similar(image, [(5, 5)], targets, recipe=RECIPE)


def test_the_picture_is_whole_or_not_there(network, tmp_path, monkeypatch):
    path = tmp_path / "alike.png"
    find_similar(IMAGE, [POINT, (5, 5)], [OTHER], picture=path, recipe=RECIPE)
    assert imread(path).std() > 0.1
    with pytest.raises(OutputExistsError, match="exists already"):
        find_similar(IMAGE, [POINT], picture=path, recipe=RECIPE)
    before = path.read_bytes()

    def broken(file, *arguments):
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(similar, "draw_similar", broken)
    with pytest.raises(OSError, match="disk full"):
        find_similar(IMAGE, [POINT], picture=path, overwrite=True, recipe=RECIPE)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_picture_is_never_put_into_an_input(network, tmp_path):
    zarr.save_array(tmp_path / "v.zarr", IMAGE)
    with pytest.raises(UsageError, match="inside"):
        find_similar(tmp_path / "v.zarr", [POINT], picture=tmp_path / "v.zarr" / "p.png", recipe=RECIPE)


def test_grey_values_of_one_type_mean_the_same():
    dark, bright, bytes_ = (open_volume(a) for a in (np.arange(999.0)[None], np.arange(9e3)[None], IMAGE))
    windows = unit_windows([dark, bright, bytes_, dark], IntensitySpec(), 0)
    assert windows[dark] == windows[bright]
    assert windows[dark][1] > 8000
    assert windows[bytes_] == (0, 255)


@pytest.mark.weights
def test_the_real_network_finds_a_disc_again():
    image, _ = discs(((40, 40, 18),), (84, 84))
    other, inside = discs(((30, 56, 16),), (84, 98), seed=3)
    recipe = ONE_TILE.with_(**{"features.deep.block": 2})
    (target,) = find_similar(image, [(40, 40)], [other], recipe=recipe).targets
    assert inside[target.matches[0][0].y, target.matches[0][0].x]
    assert target.heat[inside].mean() > target.heat[~inside].mean()
