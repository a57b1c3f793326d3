"""Classes from nothing over a volume: the same whatever the blocks, and refused before any work is done."""

import csv
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import zarr
from run_data import make_volume

from hrvol.analysis.objects import find_objects
from hrvol.errors import InputError, MissingExtraError, OutputExistsError, RecipeError, UsageError
from hrvol.features import featuriser as featuriser_module
from hrvol.features.deep.backbone import Tokens, random_backbone
from hrvol.features.featuriser import Featuriser, load_featuriser
from hrvol.recipe.recipe import Recipe
from hrvol.recipe.specs import CrfSpec, FeatureSpec
from hrvol.run import cluster
from hrvol.run.classify import classify
from hrvol.run.cluster import cluster_volume
from hrvol.run.predict import label_plane
from hrvol.run.segment import segment_volume
from hrvol.segment.cluster_classifier import fit_clusters
from hrvol.segment.model.model import load_model, save_model
from hrvol.segment.positions import relative
from hrvol.training import cluster as fitting
from hrvol.training.cluster import cluster_recipe, fit_classes
from hrvol.volume.grid.regions import stratified_tiles
from hrvol.volume.grid.tiling import whole
from hrvol.volume.ome.labels import open_label_store
from hrvol.volume.volume import class_info, open_labels, open_volume

SHAPE = (4, 84, 90)
RECIPE = Recipe.from_dict(
    {
        "features": {
            "kind": "hybrid",
            "deep": {"block": 1, "offsets": 1, "flips": False},
            "classical": {"filters": ["gaussian", "sobel"], "sigmas": [1, 2]},
        },
        "cluster": {"clusters": 8, "samples": 1500, "sample_tiles": 3},
        "tiles": {"core": 64, "overlap": 14, "planes": 1},
    }
)
CLASSICAL = RECIPE.with_(
    **{"features.kind": "classical", "cluster.classes": 2, "cluster.distance": "euclidean"}
)
DEEP = RECIPE.with_(**{"features.kind": "deep", "features.deep.offsets": 2})


def two_textures(shape=SHAPE, seed=0):
    """A bright column through all planes of dark noise, of another noise in each; where it is."""
    rng = np.random.default_rng(seed)
    _, y, x = np.indices(shape)
    inside = (y - shape[1] / 2) ** 2 + (x - shape[2] / 3) ** 2 < (shape[1] / 4) ** 2
    image = np.where(inside, 180, 70) + rng.normal(0, 15, shape)
    return np.clip(image, 0, 255).astype(np.uint8), inside


def labels_of(path):
    return open_labels(path).read()


def arrays_of(model):
    """All numbers that a model of clusters consists of."""
    found = model.classifier
    return {
        "centroids": found.centroids,
        "of_cluster": found.of_cluster,
        "mean": found.mean,
        "scale": found.scale,
        "pixels": found.tally.pixels,
        "attention": found.tally.attention,
        "figures": np.array([found.temperature, found.semantic_distance, *model.window]),
    }


def assert_same_model(one, other):
    for name, values in arrays_of(one).items():
        np.testing.assert_array_equal(arrays_of(other)[name], values, err_msg=name)
    assert one.classes == other.classes


class Stub:
    """A network whose tokens are a patch's mean and contrast, and that attends to what is bright."""

    patch = 14
    heads = 2
    channels = 3
    sha256 = None
    device = torch.device("cpu")
    even = False

    def block_numbers(self, block):
        return (1,)

    def tokens(self, images, *, stride, blocks, attention, head_map, positions):
        pool = torch.nn.functional.avg_pool2d
        mean = pool(images, self.patch, stride or self.patch)
        square = pool(images**2, self.patch, stride or self.patch)
        features = torch.cat([mean, (square - mean**2).clamp(min=0).sqrt(), 0.5 + 0 * mean], dim=1)
        paid = torch.ones_like(mean) if self.even else mean / mean.mean(dim=(-2, -1), keepdim=True)
        return Tokens(features, paid.repeat(1, self.heads, 1, 1) if attention else None, None)


@pytest.fixture
def stub(monkeypatch):
    """Puts the stub in the place of the network, in this process."""
    network = Stub()

    def load(spec, *, device="cpu", weights_path=None, offline=False, backend="torch"):
        return Featuriser(spec, network if spec.uses_deep else None)

    monkeypatch.setattr(featuriser_module, "load_featuriser", load)
    return network


@pytest.fixture(scope="module")
def network():
    return random_backbone("dinov2_vits14")


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory):
    """A file of random weights, which other processes can read too."""
    from safetensors.torch import save_file

    file = tmp_path_factory.mktemp("weights") / "random.safetensors"
    state = network.net.state_dict()
    save_file({name: values.contiguous() for name, values in state.items()}, file)
    return file


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    path = tmp_path_factory.mktemp("volume") / "volume.zarr"
    zarr.save_array(path, two_textures()[0])
    return path


def clustered(volume, out, weights, planes, **more):
    return cluster_volume(
        str(volume),
        out / "out.ome.zarr",
        recipe=RECIPE.with_(**{"tiles.planes": planes}),
        model=out / "m.hrvol",
        probabilities=True,
        uncertainty=True,
        weights_path=weights,
        **more,
    )


@pytest.fixture(scope="module")
def serial(volume, weights, tmp_path_factory):
    """The volume clustered plane by plane by the serial engine, with everything written."""
    out = tmp_path_factory.mktemp("serial")
    return out, clustered(volume, out, weights, planes=1, boxes=out / "boxes.csv", min_size=20)


def assert_same_output(one, other):
    for name in ("labels/hrvol/0", "labels/hrvol/1", "probabilities/0", "uncertainty/0"):
        mine, theirs = (folder / "out.ome.zarr" / name for folder in (one, other))
        if name.endswith("/1") and not mine.exists():
            assert not theirs.exists()
            continue
        np.testing.assert_array_equal(
            zarr.open_array(mine, mode="r")[:], zarr.open_array(theirs, mode="r")[:], err_msg=name
        )


@pytest.mark.parametrize("planes", [3, 64])
def test_blocks_make_no_difference(serial, volume, weights, tmp_path, planes):
    reference, expected = serial
    assert expected.segmentation.blocks == 4
    report = clustered(volume, tmp_path, weights, planes, boxes=tmp_path / "boxes.csv", min_size=20)
    assert report.segmentation.blocks == -(-4 // planes)  # 64 planes: one block holds all
    assert_same_model(report.model, expected.model)
    assert_same_output(tmp_path, reference)
    assert report.objects == expected.objects
    assert (tmp_path / "boxes.csv").read_text() == (reference / "boxes.csv").read_text()


def test_two_workers_give_the_same_bits(serial, volume, weights, tmp_path):
    reference, expected = serial
    seen = []
    report = clustered(
        volume,
        tmp_path,
        weights,
        planes=1,
        engine="local",
        workers=2,
        progress=lambda *event: seen.append(event),
    )
    assert report.segmentation.failed == ()
    assert_same_model(report.model, expected.model)
    assert_same_output(tmp_path, reference)
    assert report.objects is None  # nobody asked for them
    stages = dict.fromkeys(stage for stage, _, _ in seen)
    assert [stage for stage in stages if "level" not in stage] == ["sample", "fit", "segment"]


def test_the_output_says_what_was_found(serial, volume):
    out, report = serial
    found = report.clusters
    labels = labels_of(out / "out.ome.zarr")
    assert set(np.unique(labels)) <= set(found.classes)
    assert labels.all()
    assert len(found.of_cluster) == 8
    assert 1 < len(found.classes) < 8
    assert class_info(out / "out.ome.zarr") == report.model.classes
    assert [info.name for info in report.model.classes] == [
        f"{'foreground' if value in found.foreground else 'background'} {value}" for value in found.classes
    ]
    said = open_label_store(out / "out.ome.zarr").attributes["clusters"]
    assert said["count"] == 8
    assert said["foreground"] == list(found.foreground)
    assert said["semantic_distance"] == found.semantic_distance > 0
    assert sum(said["share"].values()) == pytest.approx(1)
    assert said["attention_density"].keys() == said["share"].keys() == {str(v) for v in found.classes}
    (trained,) = report.model.trained_on
    assert trained["pixels"] == 1500
    assert trained["source"] == str(volume)


def test_boxes_are_those_of_the_labels(serial):
    out, report = serial
    labels = labels_of(out / "out.ome.zarr")
    foreground = report.clusters.foreground
    assert foreground
    assert report.objects == find_objects(labels, foreground, min_size=20)
    assert report.objects
    with (out / "boxes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["size"]) for row in rows] == [item.size for item in report.objects]
    names = {info.value: info.name for info in report.model.classes} | {0: "all foreground"}
    assert [row["name"] for row in rows] == [names[item.label] for item in report.objects]


def test_the_kept_model_labels_other_volumes_to_the_same_bits(serial, weights, tmp_path):
    out, report = serial
    other, _ = two_textures((2, 90, 84), seed=5)
    for name, model in (("file", out / "m.hrvol"), ("memory", report.model)):
        segment_volume(
            other,
            tmp_path / name / "out.ome.zarr",
            model,
            probabilities=True,
            uncertainty=True,
            weights_path=weights,
        )
    assert_same_output(tmp_path / "file", tmp_path / "memory")
    assert labels_of(tmp_path / "file" / "out.ome.zarr").all()
    assert_same_model(load_model(out / "m.hrvol"), report.model)


def test_a_plane_in_memory_has_the_labels_of_the_volume(serial, volume, weights):
    out, report = serial
    featuriser = load_featuriser(RECIPE.features, weights_path=str(weights))
    found = label_plane(open_volume(volume), 2, report.model, featuriser)
    np.testing.assert_array_equal(found, labels_of(out / "out.ome.zarr")[2])


@pytest.mark.parametrize("kind", ["deep", "classical", "hybrid"])
def test_labels_are_those_of_the_nearest_centroid(network, kind):
    """Scores are taken of tokens and spread; features are spread and compared: the same, but for rounding."""
    spec = FeatureSpec.model_validate(RECIPE.features.to_dict() | {"kind": kind})
    spec = spec.model_copy(update={"deep": spec.deep.model_copy(update={"offsets": 2, "flips": True})})
    featuriser = Featuriser(spec, network)
    image = two_textures()[0][0].astype(np.float32) / 255
    y, x = np.indices(image.shape).reshape(2, -1)
    features, attention = featuriser.pixels(image, y, x, unit=True, attention=True)
    found = fit_clusters(
        features,
        attention,
        cluster_recipe(RECIPE, clusters=30, classes=6).cluster,
        directions=featuriser.groups.get("deep"),
    )
    model = replace(
        fit_classes(two_textures()[0], recipe=CLASSICAL, classes=6),
        classifier=found,
        channels=featuriser.channels,
    )
    inside = (slice(0, 84), slice(3, 90))
    labels = classify(image, inside, model, featuriser).argmax(axis=-1) + 1
    expected = found.of_cluster[found.assign(features)].reshape(image.shape)[inside]
    assert len(np.unique(expected)) == 6
    differ = labels != expected
    assert differ.mean() < 1e-3, f"{differ.sum()} of {differ.size} pixels differ"
    # Those that do have two classes equally near.
    scaled = ((features - found.mean) / found.scale).reshape(*image.shape, -1)[inside][differ]
    apart = ((scaled[:, None].astype(np.float64) - found.centroids) ** 2).sum(axis=2)
    nearest = np.sort([apart[:, found.of_cluster == value].min(axis=1) for value in found.classes], axis=0)
    assert (nearest[1] - nearest[0] < 1e-4 * found.temperature).all()


@pytest.mark.parametrize(
    "recipe",
    [CLASSICAL.with_(**{"features.classical.filters": ["gaussian"]}), DEEP],
    ids=["classical", "deep"],
)
def test_a_class_means_the_same_in_the_first_and_the_last_plane(stub, tmp_path, recipe):
    image, inside = two_textures((9, 84, 90))
    cluster_volume(image, tmp_path / "out.ome.zarr", recipe=recipe, classes=2)
    labels = labels_of(tmp_path / "out.ome.zarr")
    bright = np.bincount(labels[0][inside[0]]).argmax()
    assert bright == 2  # classes are numbered in falling order of their share
    for z in range(9):
        assert ((labels[z] == bright) == inside[z]).mean() > 0.9, z


def test_the_same_seed_gives_the_same_model_however_tiles_are_grouped():
    image, _ = make_volume()  # several tiles a plane
    recipe = CLASSICAL.with_(**{"cluster.sample_tiles": 6})
    expected = fit_classes(image, recipe=recipe)
    for planes, across in ((1, 2), (5, 1), (64, 3)):
        other = recipe.with_(**{"tiles.planes": planes, "tiles.across": across})
        assert_same_model(fit_classes(image, recipe=other), expected)
    different = fit_classes(image, recipe=recipe, seed=1)
    assert different.recipe.seed == 1
    assert not np.array_equal(different.classifier.centroids, expected.classifier.centroids)


def test_the_position_field_is_the_same_however_tiles_are_grouped(stub, tmp_path):
    image, _ = make_volume()
    recipe = DEEP.with_(**{"cluster.position_degree": 2, "cluster.sample_tiles": 6})
    expected = fit_classes(image, recipe=recipe)
    field = expected.classifier.position
    assert field.coefficients.shape == (5, expected.classifier.n_features)
    assert np.abs(field.coefficients).max() > 0
    grouped = fit_classes(image, recipe=recipe.with_(**{"tiles.planes": 5, "tiles.across": 2}))
    assert_same_model(grouped, expected)
    np.testing.assert_array_equal(grouped.classifier.position.coefficients, field.coefficients)
    # it is part of the model's file, and of what labels come out
    save_model(expected, tmp_path / "m.hrvol")
    stored = load_model(tmp_path / "m.hrvol")
    np.testing.assert_array_equal(stored.classifier.position.coefficients, field.coefficients)
    featuriser = featuriser_module.load_featuriser(recipe.features)
    tile = np.random.default_rng(0).random((64, 70)).astype(np.float32)
    inside = (slice(3, 60), slice(5, 64))
    places = np.stack(
        np.meshgrid(relative(np.arange(64), 64), relative(np.arange(70), 70), indexing="ij"), -1
    )
    y, x = (grid.ravel() for grid in np.mgrid[inside])
    features = featuriser.pixels(tile, y, x, unit=True)[0] - field.at(places[inside].reshape(-1, 2))
    classes = stored.classifier.of_cluster[stored.classifier.assign(features)]
    found = classify(tile, inside, stored, featuriser).argmax(axis=-1).ravel() + 1
    assert (found == classes).mean() > 0.999  # but for rounding


@pytest.mark.parametrize(
    ("shape", "preset"), [((4, 518, 518), "cas"), ((519, 40), "cas-volume"), ((2, 40, 519), "cas-volume")]
)
def test_the_default_recipe_is_for_one_tile_or_for_several(shape, preset):
    assert fitting.default_recipe(open_volume(np.zeros(shape, np.uint8))) == preset


def test_what_stands_out_is_foreground(stub, tmp_path):
    image, inside = two_textures()
    report = cluster_volume(
        image, tmp_path / "out.ome.zarr", recipe=DEEP, classes=2, boxes=tmp_path / "boxes.csv"
    )
    assert [info.name for info in report.model.classes] == ["background 1", "foreground 2"]
    (item,) = report.objects
    assert item.label == 2
    _, y, x = np.nonzero(inside)
    expected = (0, y.min(), x.min(), 4, y.max() + 1, x.max() + 1)
    np.testing.assert_allclose(item.box, expected, atol=8)  # half a token


def test_where_nothing_stands_out_there_is_one_class_and_no_box(stub, tmp_path):
    stub.even = True
    report = cluster_volume(
        two_textures()[0],
        tmp_path / "out.ome.zarr",
        recipe=DEEP,
        boxes=tmp_path / "boxes.csv",
        probabilities=True,
        uncertainty=True,
    )
    assert [info.name for info in report.model.classes] == ["background 1"]
    assert report.clusters.foreground == ()
    assert report.objects == ()
    assert len((tmp_path / "boxes.csv").read_text().splitlines()) == 1
    assert (labels_of(tmp_path / "out.ome.zarr") == 1).all()
    group = zarr.open_group(tmp_path / "out.ome.zarr", mode="r")
    assert (group["probabilities/0"][:] == 255).all()
    assert not group["uncertainty/0"][:].any()
    assert group.attrs["hrvol"]["clusters"]["semantic_distance"] is None


def test_a_region_is_looked_at_and_labelled_alone(stub, tmp_path):
    image, _ = two_textures()
    image[:, 60:] = 0
    roi = (slice(1, 3), slice(0, 60), slice(10, 80))
    report = cluster_volume(
        image, tmp_path / "out.ome.zarr", recipe=DEEP, classes=3, roi=roi, boxes=tmp_path / "boxes.csv"
    )
    labels = labels_of(tmp_path / "out.ome.zarr")
    assert labels[roi].all()
    assert np.count_nonzero(labels) == labels[roi].size
    assert report.objects == find_objects(labels, report.clusters.foreground)
    assert report.model.trained_on[0]["pixels"] == 1500


@pytest.mark.parametrize("shape", [(84, 90), (1, 84, 90)])
def test_images_work_like_volumes(stub, tmp_path, shape):
    image = two_textures((1, 84, 90))[0].reshape(shape)
    report = cluster_volume(
        image, tmp_path / "out.ome.zarr", recipe=DEEP, classes=2, boxes=tmp_path / "boxes.csv"
    )
    assert open_labels(tmp_path / "out.ome.zarr").array.shape == shape
    assert {len(item.box) for item in report.objects} == {2 * len(shape)}


def test_a_crf_is_kept_in_the_model(stub, tmp_path):
    pytest.importorskip("pydensecrf.densecrf", reason="needs the extra crf")
    image, inside = two_textures((1, 84, 90))
    plain = cluster_volume(image, tmp_path / "plain.ome.zarr", recipe=DEEP, classes=2)
    refined = cluster_volume(image, tmp_path / "refined.ome.zarr", recipe=DEEP, classes=2, crf=True)
    assert plain.model.recipe.crf is None
    assert refined.model.recipe.crf == CrfSpec()
    right = [
        ((labels_of(tmp_path / f"{name}.ome.zarr") == 2) == inside).mean() for name in ("plain", "refined")
    ]
    assert right[1] > max(right[0], 0.97)
    segment_volume(image, tmp_path / "again.ome.zarr", refined.model)  # without asking for it again
    np.testing.assert_array_equal(
        labels_of(tmp_path / "again.ome.zarr"), labels_of(tmp_path / "refined.ome.zarr")
    )


@pytest.mark.parametrize("files", [{"model": "out.zarr"}, {"boxes": "out.zarr/boxes.csv"}])
def test_files_in_the_place_of_the_output_are_refused_before_the_work(tmp_path, monkeypatch, files):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delattr(cluster, "fit_classes")
    with pytest.raises(UsageError, match=r"is \(or holds, or is inside\) the output out\.zarr, expected"):
        cluster_volume(two_textures()[0], "out.zarr", recipe=CLASSICAL, **files)
    assert not any(tmp_path.iterdir())


def test_boxes_of_a_run_with_failed_blocks_are_not_written(stub, tmp_path):
    recipe = DEEP.with_(**{"intensity.window": [0, 255], "cluster.sample_tiles": 1})
    image = two_textures()[0].astype(np.float32)
    ((seen, _, _),) = stratified_tiles(SHAPE, whole(SHAPE), recipe.tiles, 1, recipe.seed)
    image[(seen + 1) % 4, 5, 6] = np.nan
    report = cluster_volume(
        image, tmp_path / "out.ome.zarr", recipe=recipe, classes=2, boxes=tmp_path / "boxes.csv"
    )
    assert [failure.index for failure in report.segmentation.failed] == [((seen + 1) % 4, 0, 0)]
    assert report.objects is None
    assert not (tmp_path / "boxes.csv").exists()


def test_settings_override_the_recipe():
    spec = cluster_recipe(RECIPE, clusters=30, merge=1.1, seed=7)
    assert (spec.cluster.clusters, spec.cluster.merge, spec.cluster.classes) == (30, 1.1, None)
    assert spec.seed == 7
    assert spec.cluster.samples == 1500
    assert cluster_recipe(CLASSICAL).cluster.classes == 2
    assert cluster_recipe(CLASSICAL, merge=0.9).cluster.classes is None  # up to a distance, then
    assert cluster_recipe(CLASSICAL, merge=0.9, classes=3).cluster.classes == 3
    assert cluster_recipe(None) == Recipe.load("cas")
    assert cluster_recipe("cas-paper", classes=2).features == Recipe.load("cas-paper").features


def refuses(error, match, source, **options):
    with pytest.raises(error, match=match) as caught:
        fit_classes(source, **{"recipe": DEEP, **options})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [SHAPE, (84, 90), (10, 10)])
def test_a_constant_image_is_refused(stub, shape):
    refuses(InputError, r"found one grey value \(7\) everywhere, expected structure", np.full(shape, 7))
    refuses(InputError, "one grey value", np.full(shape, 0.5, np.float32), classes=2)


def test_a_constant_region_is_refused(stub):
    image, _ = two_textures()
    image[2:, :50, :50] = 9
    roi = (slice(2, 4), slice(0, 50), slice(0, 50))
    refuses(InputError, r"found one grey value \(9\) everywhere", image, roi=roi)
    assert fit_classes(image, recipe=DEEP, classes=2).classes


@pytest.mark.parametrize("side", [1, 10, 13])
def test_an_image_smaller_than_a_patch_has_classes_or_is_refused(stub, tmp_path, side):
    image = np.random.default_rng(0).integers(0, 255, (side, 10)).astype(np.uint8)
    report = cluster_volume(
        image,
        tmp_path / "out.ome.zarr",
        recipe=DEEP.with_(**{"features.deep.offsets": 4}),
        clusters=3,
        classes=2,
    )
    labels = labels_of(tmp_path / "out.ome.zarr")
    assert set(np.unique(labels)) == {1, 2}
    assert report.segmentation.voxels == image.size
    stretched = DEEP.with_(**{"features.deep.offsets": 1, "features.deep.placement": "stretch"})
    refuses(InputError, f"at least 14 px a side, found {side}", image, recipe=stretched, clusters=3)


def test_numbers_that_make_no_sense_are_refused(stub):
    image, _ = two_textures()
    refuses(RecipeError, "classes: found 9, expected at most the number of clusters, 8", image, classes=9)
    refuses(RecipeError, "clusters", image, recipe=CLASSICAL, clusters=1)
    refuses(RecipeError, "merge", image, merge=0.0)
    refuses(RecipeError, "no such recipe", image, recipe="casual")


def test_fewer_pixels_than_clusters_are_refused(stub):
    image = two_textures()[0][0]
    refuses(InputError, "found 25 pixels, expected at least 80", image[:5, :5], clusters=80)
    refuses(
        InputError,
        "found 20 pixels, expected at least 80",
        image,
        recipe=DEEP.with_(**{"cluster.samples": 20}),
        clusters=80,
    )


def test_fewer_different_pixels_than_clusters_are_refused(stub):
    halves = np.zeros((64, 64), np.uint8)
    halves[:, 28:] = 200
    recipe = DEEP.with_(**{"features.deep.offsets": 1, "features.deep.interpolation": "nearest"})
    refuses(
        InputError,
        r"found \d different groups of pixels, expected 40 clusters",
        halves,
        recipe=recipe,
        clusters=40,
    )


def test_features_without_attention_need_the_number_of_classes(stub, monkeypatch):
    monkeypatch.setattr(fitting, "sample_pixels", None)  # it is refused before the volume is sampled
    recipe = CLASSICAL.with_(**{"cluster.classes": None})
    refuses(UsageError, "expected the number of classes", two_textures()[0], recipe=recipe)
    refuses(UsageError, "expected the number of classes", two_textures()[0], recipe=CLASSICAL, merge=1.0)


@pytest.mark.parametrize("window", ["auto", [0.0, 255.0]])
def test_what_is_not_finite_is_named(stub, window):
    image = two_textures()[0].astype(np.float32)
    image[2, 70, 5] = np.nan
    recipe = DEEP.with_(**{"intensity.window": window, "cluster.sample_tiles": 4})
    refuses(InputError, "found nan at z=2, y=70, x=5, expected finite", image, recipe=recipe)
    refuses(InputError, "found nan at z=0, y=0, x=0", np.full(SHAPE, np.nan, np.float32), recipe=recipe)


@pytest.fixture
def unfitted(monkeypatch):
    """Fails if anything is fitted."""

    def fail(*_arguments, **_options):
        raise AssertionError("fitted before it was refused")

    monkeypatch.setattr(cluster, "fit_classes", fail)


def test_an_output_in_the_way_is_refused_before_anything_is_fitted(volume, unfitted, tmp_path):
    out = tmp_path / "out.ome.zarr"
    zarr.save_array(out, np.zeros((2, 2)))
    with pytest.raises(OutputExistsError, match=r"out\.ome\.zarr: exists already"):
        cluster_volume(str(volume), out, recipe=DEEP)
    with pytest.raises(OutputExistsError, match="hrvol did not write"):
        cluster_volume(str(volume), out, recipe=DEEP, overwrite=True)
    with pytest.raises(UsageError, match="input"):
        cluster_volume(str(volume), volume, recipe=DEEP, overwrite=True)


@pytest.mark.parametrize("name", ["boxes", "model"])
def test_folders_that_are_not_there_are_refused_before_anything_is_fitted(volume, unfitted, tmp_path, name):
    with pytest.raises(UsageError, match=r"no such folder .*none, expected one to write to"):
        cluster_volume(
            str(volume), tmp_path / "out.ome.zarr", recipe=DEEP, **{name: tmp_path / "none" / "file"}
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("in_recipe", [False, True])
def test_a_missing_extra_is_refused_before_anything_is_fitted(
    volume, unfitted, tmp_path, monkeypatch, in_recipe
):
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    recipe = DEEP.with_(crf=CrfSpec()) if in_recipe else DEEP
    with pytest.raises(MissingExtraError, match=r"hrvol\[crf\]"):
        cluster_volume(str(volume), tmp_path / "out.ome.zarr", recipe=recipe, crf=not in_recipe)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"engine": "pbs"}, "engine"),
        ({"workers": 3}, "serial"),
        ({"engine": "local", "workers": 0}, "workers"),
        ({"classes": 9}, "at most the number of clusters"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_fitted(volume, unfitted, tmp_path, options, match):
    with pytest.raises(UsageError, match=match):
        cluster_volume(str(volume), tmp_path / "out.ome.zarr", recipe=DEEP, **options)
    assert not list(tmp_path.iterdir())


def test_a_region_outside_is_refused_before_the_network_is_loaded(volume, monkeypatch, tmp_path):
    monkeypatch.setattr(featuriser_module, "load_featuriser", None)
    with pytest.raises(UsageError, match="along z"):
        cluster_volume(
            str(volume), tmp_path / "out.ome.zarr", recipe=DEEP, roi=(slice(0, 9), slice(None), slice(None))
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.weights
def test_the_real_network_tells_two_textures_apart(vits14, tmp_path):
    image, inside = two_textures((1, 112, 112))
    report = cluster_volume(
        image,
        tmp_path / "out.ome.zarr",
        recipe=Recipe.load("cas").with_(**{"features.deep.offsets": 1}),
        clusters=20,
        classes=2,
    )
    labels = labels_of(tmp_path / "out.ome.zarr")
    share = ((labels == 2) == inside).mean()
    assert max(share, 1 - share) > 0.8
    assert report.clusters.tally.attention.sum() / report.clusters.tally.pixels.sum() == pytest.approx(
        1, abs=0.3
    )


def test_files_in_the_way_are_refused_before_any_fitting(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (32, 32)).astype(np.uint8)
    for name in ("boxes", "model"):
        taken = tmp_path / f"{name}.file"
        taken.write_text("mine")
        with pytest.raises(OutputExistsError, match="exists already, expected nothing"):
            cluster_volume(image, tmp_path / "out.ome.zarr", recipe="classical", classes=2, **{name: taken})
        for other in (taken, tmp_path):
            with pytest.raises(OutputExistsError, match=r"found no .*expected an earlier one"):
                cluster_volume(
                    image,
                    tmp_path / "out.ome.zarr",
                    recipe="classical",
                    classes=2,
                    overwrite=True,
                    **{name: other},
                )
        assert taken.read_text() == "mine"


@pytest.mark.parametrize("name", ["boxes", "model"])
def test_the_input_is_never_replaced_by_a_file(volume, unfitted, tmp_path, name):
    with pytest.raises(UsageError, match="input"):
        cluster_volume(
            str(volume),
            tmp_path / "out.ome.zarr",
            recipe=DEEP,
            overwrite=True,
            **{name: volume / "zarr.json"},
        )
