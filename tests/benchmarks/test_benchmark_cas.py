"""The machinery of ``benchmarks.cas``, on small synthetic scenes with features that need no network."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).parents[2]))

import benchmarks.cas.__main__ as cas
from benchmarks.cas.cache import Cache
from benchmarks.cas.data import Scene, load_scenes, reduced, reduced_scenes, stroke_box
from benchmarks.cas.fit import KINDS, RECIPE, Fit, Partition, fit_scene, look_of
from benchmarks.cas.pictures import COLOURS, as_true
from benchmarks.cas.scores import GIVEN, PUBLISHED, agreement, alone, merged, merges, score, true_boxes
from benchmarks.cas.tables import corloc, per_seed, spread
from hrvol.errors import InputError
from hrvol.features.featuriser import load_featuriser
from hrvol.run.predict import label_plane
from hrvol.segment.attention import ClusterTally
from hrvol.training.cluster import fit_classes
from hrvol.volume.volume import open_volume


def quiet(_):
    pass


def make_scene(name="tcells-0", planes=1, side=96):
    """A bright disc (1) with a rim (2) in the dark (3)."""
    y, x = np.indices((side, side)) - side // 2
    radius = np.hypot(y, x)
    truth = np.where(radius < side / 6, 1, np.where(radius < side / 4, 2, 3)).astype(np.uint8)
    rng = np.random.default_rng(0)
    images = np.array([40, 220, 130, 40])[truth] + rng.normal(0, 12, (planes, side, side))
    images = np.clip(images, 0, 255).astype(np.uint8)
    return Scene(
        name,
        name.split("-")[0],
        images,
        {"strokes": np.repeat(truth[None], planes, axis=0)},
        ("nucleus", "cell", "background"),
        (1, 2),
        {"cell": (1, 2), "nucleus": (1,)},
    )


@pytest.fixture(scope="module")
def scene():
    return make_scene()


def look(image):
    """Two blurs, as directions; attention where it is bright."""
    blurs = np.stack([ndimage.gaussian_filter(image, sigma) + 0.01 for sigma in (1, 3)], axis=-1)
    attention = (ndimage.gaussian_filter(image, 2) > 0.4).astype(np.float32)
    return (blurs / np.linalg.norm(blurs, axis=-1, keepdims=True)).astype(np.float32), attention


def test_box_of_strokes_is_half_open():
    strokes = np.zeros((9, 12), np.uint8)
    strokes[2, 3:6] = 1
    strokes[7, 10] = 2
    strokes[0, 0] = 3
    assert stroke_box(strokes, (1,)) == (2, 3, 3, 6)
    assert stroke_box(strokes, (1, 2)) == (2, 3, 8, 11)
    assert stroke_box(strokes, (4,)) is None


def test_reduction_is_the_mean_of_whole_squares():
    images = np.arange(2 * 5 * 6, dtype=np.uint8).reshape(2, 5, 6)
    small = reduced(Scene("a", "a", images, {"dense": images}, ("x",)), 2)
    np.testing.assert_array_equal(small.images[0], [[4, 6, 8], [16, 18, 20]])  # 3.5 to the even 4
    np.testing.assert_array_equal(small.truths["dense"][1], [[30, 32, 34], [42, 44, 46]])
    assert small.images.dtype == np.uint8


def test_published_settings_are_tried_on_all_cells_and_one_plane_of_others():
    scenes = [make_scene(name) for name in ("tcells-0", "tcells-1", "super1-0", "super1-1")]
    scenes.append(make_scene("vnc", planes=3))
    small = reduced_scenes(scenes, side=50)
    assert [one.name for one in small] == ["tcells-0", "tcells-1", "super1-0", "vnc-0"]
    assert {one.images.shape for one in small} == {(1, 48, 48)}
    assert {one.truths["strokes"].shape for one in small} == {(1, 48, 48)}


@pytest.mark.parametrize("seed", [0, 1])
def test_classes_are_those_of_the_product(scene, seed):
    """Same sample, clusters, merging and labels as ``fit_classes`` and ``label_plane``."""
    kind = KINDS["classical"]
    nothing = np.ones(scene.images.shape, np.float32)
    fit = fit_scene(scene, kind, look_of(kind, scene), seeds=[seed], attention=nothing, log=quiet)
    found = merged(fit.partitions[seed], merges(kind.cluster, 3)[GIVEN])
    recipe = RECIPE.with_(features=kind.features, cluster=kind.cluster)
    model = fit_classes(scene.images, recipe=recipe, classes=3, seed=seed)
    labels = label_plane(open_volume(scene.images), 0, model, load_featuriser(kind.features))
    assert (found.labels(fit.partitions[seed])[0] == labels).mean() > 0.999
    np.testing.assert_allclose(
        np.sort(fit.partitions[seed].centroids, axis=0), np.sort(model.classifier.centroids, axis=0)
    )


def test_features_of_their_own_plane_are_sampled():
    """Attention tells planes apart: clusters are bright in plane 0 and dark in plane 1, or the reverse."""
    scene = make_scene("vnc", planes=2)
    seen = []

    def by_plane(image):
        seen.append(image)
        features, _ = look(image)
        return features, np.full(image.shape, float(len(seen)), np.float32)

    fit = fit_scene(scene, KINDS["deep"], by_plane, seeds=[0], log=quiet)
    tally = fit.partitions[0].tally
    # every pixel is sampled: 18 432 of at most 50 000
    assert tally.pixels.sum() == scene.images.size
    assert tally.attention.sum() == pytest.approx(96 * 96 * (1 + 2))
    assert [float(plane.mean()) for plane in fit.attention] == [1, 2]


def test_grey_values_make_no_more_clusters_than_there_are_levels(scene):
    coarse = replace(scene, images=scene.images // 16 * 16)
    levels = len(np.unique(coarse.images))
    attention = look(scene.images[0] / np.float32(255))[1][None]
    fit = fit_scene(
        coarse,
        KINDS["intensity"],
        look_of(KINDS["intensity"], coarse),
        seeds=[0],
        attention=attention,
        log=quiet,
    )
    assert levels < 17
    assert len(fit.partitions[0].centroids) == levels


def test_features_without_attention_are_refused(scene):
    with pytest.raises(InputError, match="tcells-0: found features without attention"):
        fit_scene(scene, KINDS["intensity"], look_of(KINDS["intensity"], scene), seeds=[0], log=quiet)


def fit_of(assigned, density, distance=1.0):
    """Clusters far apart, of given attention densities, all on one line."""
    count = len(density)
    pixels = np.bincount(assigned.ravel(), minlength=count).astype(np.int64)
    centroids = np.arange(count, dtype=np.float32)[:, None] * np.float32(distance)
    tally = ClusterTally(pixels, pixels * np.asarray(density, np.float64))
    attention = np.asarray(density, np.float32)[assigned]
    return Fit({0: Partition(centroids, tally, assigned)}, attention, {"features": 1.0}, {"features": 2.0})


def test_perfect_clusters_score_one(scene):
    truth = scene.truths["strokes"]
    spec = KINDS["classical"].cluster
    rows = {row["merge"]: row for row in score(scene, fit_of(truth - 1, [9, 9, 0]), spec)}
    assert list(rows) == ["0.95", "1.0", "1.1", GIVEN]
    given = rows[GIVEN]
    assert given["classes"] == 3
    assert given["truths"]["strokes"]["miou"] == given["truths"]["strokes"]["purity"] == 1
    assert given["semantic_distance"] is None
    assert given["foreground_iou"] == 1
    assert given["foreground"] == pytest.approx((truth < 3).mean())
    assert given["foreground_classes"] == 2
    nucleus = given["boxes"]["nucleus"]
    assert nucleus["multi"]["iou"] == 1
    assert nucleus["single"]["iou"] < 1  # the superbox is around both
    assert given["boxes"]["cell"]["single"] == {
        "box": list(stroke_box(truth[0], (1, 2))),
        "iou": 1.0,
        "of": 1,
    }


def test_a_surplus_class_is_missed(scene):
    truth = scene.truths["strokes"]
    labels = truth.astype(np.uint16)
    left = labels[:, :, :40]
    left[left == 3] = 4  # less than half of the background
    found = agreement(labels, truth)
    share = float((labels == 3).sum() / (truth == 3).sum())
    assert found["purity"] == 1
    assert found["iou"] == [1, 1, pytest.approx(share, abs=1e-5)]
    assert found["miou"] == pytest.approx((2 + share) / 3, abs=1e-5)


def test_merging_is_up_to_lambda_times_the_semantic_distance(scene):
    """Clusters at 0, 1, 2, the last in the background: pairs at distances 2 and 1, mode 1.05 at the edge."""
    partition = fit_of(scene.truths["strokes"] - 1, [9, 9, 0]).partitions[0]
    spec = KINDS["classical"].cluster
    found = {name: merged(partition, way) for name, way in merges(spec, 2).items()}
    assert found[PUBLISHED].semantic_distance == pytest.approx(1.05)
    assert found["1.1"].semantic_distance == pytest.approx(1.155)
    assert found[PUBLISHED].n_classes == 2
    assert found["0.95"].n_classes == 3
    assert found["0.95"].values.tolist() == [3, 2, 1]  # by falling share


def test_nothing_in_the_foreground_is_one_class(scene):
    rows = score(scene, fit_of(scene.truths["strokes"] - 1, [1, 1, 1]), KINDS["classical"].cluster)
    assert rows[1]["classes"] == 1
    assert rows[1]["semantic_distance"] is None
    assert rows[1]["truths"] == alone(scene)
    assert rows[1]["boxes"]["cell"]["multi"] == {"box": None, "iou": 0.0, "of": 0}


def test_classes_that_change_places_between_planes_do_not_hold():
    truth = np.repeat([[[1, 1, 2, 2]] * 4], 2, axis=0).astype(np.uint8)
    labels = truth.astype(np.uint16)
    good = agreement(labels, truth)
    assert (good["miou"], good["held"], good["apart"]) == (1, 1, 1)
    labels[1] = 3 - labels[1]
    bad = agreement(labels, truth)
    assert bad["apart"] == 1
    assert bad["held"] == 0.5
    assert bad["miou"] == pytest.approx(1 / 3, abs=1e-5)
    assert "held" not in agreement(labels[:1], truth[:1])


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """A bench whose features need no network, and the images that it looked at."""
    looked = []

    def fake(kind, scene):
        def told(image):
            looked.append(kind)
            return look(image) if kind.attends else (image[..., None], None)

        return told

    monkeypatch.setattr(cas, "look_of", fake)
    return cas.Bench(Cache(tmp_path / "cache"), (0,), "a machine."), looked


def test_what_was_measured_is_not_measured_again(bench, scene, monkeypatch):
    one, looked = bench
    first = {kind: one.result(scene, kind, "whole") for kind in ("deep", "intensity")}
    assert len(looked) == 2
    again = replace(one, machine="another machine.")
    assert {kind: again.result(scene, kind, "whole") for kind in first} == json.loads(json.dumps(first))
    (one.cache.folder / "tcells-0-deep.json").unlink()  # clusters are still there
    assert again.result(scene, "deep", "whole")["machine"] == "a machine."
    monkeypatch.setattr(cas, "scoring_key", lambda: "other code")
    monkeypatch.setattr(cas, "alone", lambda scene: "scored anew")
    assert again.result(scene, "deep", "whole")["alone"] == "scored anew"
    other = replace(scene, truths={"strokes": scene.truths["strokes"] % 3 + 1})
    assert again.result(other, "deep", "whole")["rows"] != first["deep"]["rows"]
    assert len(looked) == 2  # nor where the code that scores is another
    assert list(one.fit(scene, "deep", "whole").partitions) == [0]


def test_what_has_changed_or_is_damaged_is_measured_again(bench, scene):
    one, looked = bench
    one.result(scene, "deep", "whole")
    replace(one, seeds=(0, 1)).result(scene, "deep", "whole")
    assert len(looked) == 2
    one.result(replace(scene, images=255 - scene.images), "deep", "whole")
    assert len(looked) == 3
    for file in one.cache.folder.iterdir():
        file.write_bytes(file.read_bytes()[:100])
    one.result(scene, "deep", "whole")
    assert len(looked) == 4


def test_attention_comes_from_the_network(bench, scene):
    one, looked = bench
    fit = one.fit(scene, "intensity", "whole")
    assert [kind.attends for kind in looked] == [True, False]
    np.testing.assert_array_equal(fit.attention, one.fit(scene, "deep", "whole").attention)


def fake_result(image, features, mious, *, part="whole", true=(0, 0, 10, 10), box=(0, 0, 10, 10), seconds=1):
    rows = []
    for seed, miou in enumerate(mious):
        for merge in ("0.95", "1.0", "1.1", GIVEN):
            hit = {"box": list(box) if box else None, "iou": 0.0, "of": 1}
            rows.append(
                {
                    "seed": seed,
                    "merge": merge,
                    "clusters": 80,
                    "classes": 4,
                    "semantic_distance": None,
                    "truths": {"strokes": {"miou": miou, "purity": 0.9, "iou": [miou]}},
                    "foreground_classes": 1,
                    "foreground": 0.25,
                    "foreground_iou": 0.5,
                    "boxes": {"cell": {"multi": hit, "single": hit | {"box": None}}} if true else {},
                }
            )
    return {
        "image": image,
        "data": image.split("-")[0],
        "part": part,
        "features": features,
        "shape": [1, 100, 100],
        "true_classes": 3,
        "machine": "a machine.",
        "seconds": {"features": seconds, "k-means": 4, "labels": 2},
        "cpu_seconds": {"features": 2 * seconds, "k-means": 4, "labels": 2},
        "alone": {"strokes": {"miou": 0.2, "purity": 0.6}},
        "true_boxes": {"cell": list(true)} if true else {},
        "rows": rows,
    }


def test_figures_are_means_over_images_and_spread_over_seeds():
    results = [fake_result("tcells-0", "deep", [0.2, 0.4]), fake_result("tcells-1", "deep", [0.4, 0.8])]
    values = per_seed(results, GIVEN, lambda row: row["truths"]["strokes"]["miou"])
    assert values == pytest.approx([0.3, 0.6])
    assert spread(values) == "0.450 ± 0.212"
    assert (spread([0.5], 1), spread([])) == ("0.5", "")
    assert per_seed(results, GIVEN, lambda row: row["semantic_distance"]) == []


def test_corloc_counts_images_that_show_the_object():
    results = [
        fake_result("tcells-0", "deep", [0, 0]),
        fake_result("tcells-1", "deep", [0, 0], box=(0, 0, 10, 4)),
        fake_result("tcells-2", "deep", [0, 0], box=None),
        fake_result("tcells-3", "deep", [0, 0], true=None),
    ]
    assert corloc(results, GIVEN, "cell", "multi") == pytest.approx([1 / 3, 1 / 3])
    assert corloc(results, GIVEN, "cell", "single") == [0, 0]


def test_classes_take_the_numbers_of_true_ones():
    truth = np.array([[[1, 1, 1, 2, 2, 2, 0, 0]]], np.uint8)
    labels = np.array([[[2, 2, 3, 5, 5, 5, 1, 4]]], np.uint16)
    assert as_true(labels, truth, 2).tolist() == [[[1, 1, 4, 2, 2, 2, 3, 5]]]
    many = np.arange(1, 41, dtype=np.uint16).reshape(1, 1, 40)
    assert as_true(many, np.ones((1, 1, 40), np.uint8), 1).max() == COLOURS


@pytest.mark.data
def test_shared_data(data_dir):
    scenes = {scene.name: scene for scene in load_scenes()}
    assert len(scenes) == 6 + 4 + 3 + 1 + 1
    assert {scene.images.shape for scene in scenes.values() if scene.data == "ebc2"} == {(1, 512, 512)}
    assert scenes["vnc"].images.shape == scenes["vnc"].truths["dense"].shape == (4, 512, 512)
    assert list(scenes["needle_block"].truths) == ["strokes", "reference_hybrid_crf"]
    for i in range(6):
        cell = scenes[f"tcells-{i}"]
        truth = cell.truths["strokes"]
        grey = {value: cell.images[truth == value].mean() for value in np.unique(truth[truth > 0])}
        assert max(grey, key=grey.get) == 3  # what electrons pass through is the background
        assert true_boxes(cell)["cell"] is not None
    assert scenes["tcells-5"].n_classes == 2
    assert true_boxes(scenes["tcells-5"])["nucleus"] is None
    assert [scene.name for scene in load_scenes(["tcells-2", "vnc"])] == ["tcells-2", "vnc"]
