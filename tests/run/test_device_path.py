"""From features to bytes, written once for all libraries, and nothing copied to the host on the way."""

from dataclasses import replace
from types import SimpleNamespace

import array_api_strict as strict
import numpy as np
import pytest
import torch
from run_data import QUICK

from hrvol.arrays import beside, most_likely, on_host, to_host, where_is
from hrvol.errors import InputError, MissingExtraError, ModelError
from hrvol.features.featuriser import Featuriser, load_featuriser
from hrvol.quality.metrics import SeamDisagreement, seam_disagreement
from hrvol.recipe.specs import ClassifierSpec, ClusterSpec
from hrvol.run import predict
from hrvol.run.classify import classify
from hrvol.run.options import PredictOptions
from hrvol.run.predict import predict_part, read_window
from hrvol.segment.cluster_classifier import fit_clusters
from hrvol.segment.estimators.on_device import device_probabilities, multiply
from hrvol.segment.pixel_classifier import PixelClassifier
from hrvol.segment.positions import PositionField
from hrvol.segment.strokes import Samples
from hrvol.training.train import train_model
from hrvol.volume.grid.tiling import blocks, tiles_of
from hrvol.volume.volume import open_volume

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
ELSEWHERE = strict.Device("device1")


def away(values):
    """Return a NumPy array as one of another library, on a device that NumPy cannot reach."""
    return strict.asarray(values, device=ELSEWHERE)


LIBRARIES = {"strict": away, "torch": lambda values: torch.from_numpy(np.array(values))}
every_library = pytest.mark.parametrize("move", LIBRARIES.values(), ids=LIBRARIES)


class Elsewhere:
    """A featuriser that hands over what it computes in another library."""

    def __init__(self, featuriser, move):
        self.featuriser, self.move = featuriser, move
        self.groups = featuriser.groups

    def scores(self, image, maps, **options):
        (only,) = maps.values()
        return self.move(self.featuriser.scores(image, {"classical": only}, **options).numpy())

    def stripes(self, *args, **options):
        for rows, features in self.featuriser.stripes(*args, **options):
            yield rows, self.move(features)


def chances(*shape, seed=0):
    """Return probabilities (y, x, K), some of which are equal or zero."""
    found = np.random.default_rng(seed).dirichlet(np.ones(shape[-1]), shape[:-1]).astype(np.float32)
    found[0, 0], found[0, 1] = 1 / shape[-1], np.eye(shape[-1])[1]
    return found


def in_two_tiles():
    """Return two views that share six columns of a plane, and their probabilities."""
    views, found = [], []
    for i, columns in enumerate((slice(0, 16), slice(10, 24))):
        width = columns.stop - columns.start
        weight = np.linspace(0.1, 0.9, width, dtype=np.float32)[None].repeat(20, axis=0)
        views.append(predict.PartView(None, (slice(0, 20), slice(0, width)), (slice(0, 20), columns), weight))
        found.append(chances(20, width, 3, seed=i))
    return views, found


def test_a_hidden_copy_to_the_host_would_be_noticed(monkeypatch):
    plane = away(np.zeros((2, 3), np.float32))
    for copy in (np.asarray, np.array, np.exp, lambda values: np.moveaxis(values, 0, 1)):
        with pytest.raises(RuntimeError, match=r"Can't convert array on the .*device1"):
            copy(plane)
    views, found = in_two_tiles()
    monkeypatch.setattr(predict, "added_up", lambda planes: np.sum(planes, axis=0))
    with pytest.raises(RuntimeError, match=r"Can't convert array on the .*device1"):
        predict.blend_views(views, [away(proba) for proba in found], (20, 24))


@every_library
def test_tiles_are_blended_labelled_and_compared_where_they_are(move):
    views, found = in_two_tiles()
    there = [move(proba) for proba in found]
    plane, expected = (predict.blend_views(views, probas, (20, 24)) for probas in (there, found))
    assert where_is(plane) == where_is(there[0])
    np.testing.assert_array_equal(to_host(plane), expected)
    np.testing.assert_allclose(expected.sum(axis=0), 1, atol=1e-6)
    for values in ([1, 2, 3], [2, 300, 65535]):
        labels = most_likely(plane, values)
        assert where_is(labels) == where_is(plane)
        np.testing.assert_array_equal(to_host(labels), np.asarray(values)[expected.argmax(axis=0)])
    np.testing.assert_array_equal(to_host(predict.as_bytes(plane)), np.rint(255 * expected).astype(np.uint8))
    seams = predict._seams(views, there, [(0, 1)])
    here = predict._seams(views, found, [(0, 1)])
    assert (seams.pixels, seams.labels_differ) == (here.pixels, here.labels_differ)
    assert seams.probability_change == pytest.approx(here.probability_change, rel=1e-12)  # added up otherwise
    assert seams.pixels == 20 * 6
    assert seams.labels_differ > 0


@every_library
def test_the_entropy_of_a_plane_is_worked_out_where_it_is(move):
    plane = np.moveaxis(chances(9, 7, 4), -1, 0)
    found = predict.entropy(move(plane))
    assert where_is(found) == where_is(move(plane))
    expected = -(plane * np.log(np.maximum(plane, 1e-12))).sum(axis=0) / np.log(4)
    np.testing.assert_allclose(to_host(found), expected, atol=1e-6)
    assert to_host(found)[0, 0] == pytest.approx(1)
    assert to_host(found)[0, 1] == 0


@every_library
def test_seams_leave_out_what_either_tile_leaves_unlabelled(move):
    a, b = (move(np.moveaxis(chances(4, 5, 2, seed=seed), -1, 0)) for seed in (0, 1))
    labels = np.ones((4, 5), np.int64)
    labels[0] = 0
    seam = seam_disagreement(move(labels), move(2 * np.ones((4, 5), np.int64)), a, b)
    change = np.abs(to_host(a)[:, 1:].astype(np.float64) - to_host(b)[:, 1:]).mean(axis=0).sum()
    assert seam == SeamDisagreement(15, 15, pytest.approx(change))


@every_library
def test_arrays_go_to_a_device_and_come_back(move):
    host = np.arange(6, dtype=np.uint8).reshape(2, 3)
    there = beside(host, move(np.zeros(1, np.float32)))
    assert not on_host(there)
    np.testing.assert_array_equal(to_host(there), host)
    assert to_host(there).dtype == np.uint8
    assert to_host(host) is host


@pytest.fixture(scope="module")
def heads(data):
    """A model of each kind that is matrix products, trained on the small volume."""
    specs = {
        kind: ClassifierSpec(kind=kind, hidden=(8,), max_iter=50) for kind in ("logistic", "ridge", "mlp")
    }
    return {
        kind: train_model([(data[0], data[2])], recipe=QUICK.model_copy(update={"classifier": spec}))
        for kind, spec in specs.items()
    }


@every_library
@pytest.mark.parametrize("kind", ["logistic", "ridge", "mlp"])
def test_a_part_is_predicted_as_on_the_host(data, heads, tmp_path, kind, move):
    model = heads[kind]
    tiles = QUICK.tiles.model_copy(update={"across": 2, "blend": 4})
    model = replace(model, recipe=model.recipe.model_copy(update={"tiles": tiles}))
    volume = open_volume(data[0])
    block = blocks(volume.shape, tiles)[0]
    part = (slice(0, 1), *block.core[1:])
    raw = read_window(volume, block, part, model)
    featuriser = load_featuriser(QUICK.features, device="cpu")
    host, there = (
        predict_part(raw, volume, block, part, model, source, PredictOptions(True, True))
        for source in (featuriser, Elsewhere(featuriser, move))
    )
    assert host.seams.pixels > 0
    assert there.labels.dtype == host.labels.dtype
    np.testing.assert_array_equal(there.labels, host.labels)
    for name in ("probabilities", "uncertainty"):
        apart = np.abs(getattr(there, name).astype(int) - getattr(host, name))
        assert apart.max() <= 1
        assert (apart > 0).mean() < 1e-3
    assert there.seams.pixels == host.seams.pixels


def test_probabilities_stay_on_the_device_unless_a_crf_needs_them(data, heads):
    pytest.importorskip("pydensecrf.densecrf", reason="needs the extra crf")
    from hrvol.recipe.specs import CrfSpec

    featuriser = Elsewhere(load_featuriser(QUICK.features, device="cpu"), away)
    image = data[0][0, :60, :50].astype(np.float32) / 255
    inside = (slice(5, 55), slice(8, 40))
    assert where_is(classify(image, inside, heads["logistic"], featuriser)) == ELSEWHERE
    refined = classify(image, inside, heads["logistic"], featuriser, PredictOptions(crf=CrfSpec()))
    assert on_host(refined)
    assert refined.shape == (50, 32, 2)


def samples(values=(1, 3, 7), count=300):
    rng = np.random.default_rng(0)
    labels = rng.choice(values, count).astype(np.uint16)
    features = rng.normal(size=(count, 6)) + labels[:, None] * [0.5, 0, 0, 0, 0.3, 0]
    return Samples(features.astype(np.float32), labels, np.zeros(count, np.int32))


@every_library
def test_a_product_is_multiplied_where_it_is(move):
    groups = {"deep": slice(0, 4), "classical": slice(4, 6)}
    spec = ClassifierSpec(kind="logistic")
    classifier = PixelClassifier.fit(samples(), spec, combine="product", groups=groups)
    features = samples(count=50).features
    found = classifier.predict_proba(move(features))
    assert where_is(found) == where_is(move(features))
    np.testing.assert_allclose(to_host(found), classifier.predict_proba(features), atol=1e-6)
    np.testing.assert_array_equal(classifier.predict(move(features)), classifier.predict(features))
    assert to_host(multiply([move(np.eye(3)), move(np.full((3, 3), 1 / 3))])).max() == pytest.approx(
        1, abs=1e-5
    )


@every_library
def test_bad_features_are_refused_on_a_device_too(move):
    classifier = PixelClassifier.fit(samples(), ClassifierSpec(kind="ridge"))
    with pytest.raises(ModelError, match=r"found shape \(5, 4\), expected \(n, 6\)"):
        classifier.predict_proba(move(np.zeros((5, 4), np.float32)))
    bad = np.zeros((5, 6), np.float32)
    bad[2, 3], bad[4, 1] = np.nan, np.inf
    with pytest.raises(InputError, match="NaN or infinity in 2 of 5 pixels"):
        classifier.predict_proba(move(bad))


@every_library
def test_clusters_become_classes_where_their_scores_are(move):
    features = samples(count=400).features
    clusters = fit_clusters(features, None, ClusterSpec(clusters=12, classes=4))
    weight, bias = clusters.linear(slice(None))
    scores = features.reshape(20, 20, -1) @ weight.T + bias
    found = clusters.class_probabilities(move(scores))
    assert where_is(found) == where_is(move(scores))
    np.testing.assert_allclose(to_host(found), clusters.class_probabilities(scores), atol=1e-6)


def clustered(image):
    """Return a model of classes found in the filtered pixels of an image, with a field of places."""
    featuriser = load_featuriser(QUICK.features, device="cpu")
    pixels = featuriser(image).flatten(1).T.numpy()
    clusters = fit_clusters(pixels, None, ClusterSpec(clusters=12, classes=3))
    field = PositionField(1, np.full((2, pixels.shape[1]), 1e-3, np.float32))
    return featuriser, SimpleNamespace(classifier=replace(clusters, position=field))


def test_scores_of_clusters_stay_on_the_device(data):
    image = data[0][0, :100, :50].astype(np.float32) / 255
    inside = (slice(5, 95), slice(8, 40))
    featuriser, model = clustered(image)
    there = Elsewhere(featuriser, away)
    here = Elsewhere(featuriser, torch.from_numpy)
    for source in (there, here):  # as if the columns were those of a network, whose place counts
        source.groups = {"deep": featuriser.groups["classical"]}
    found, expected = (classify(image, inside, model, source) for source in (there, here))
    assert where_is(found) == ELSEWHERE
    assert on_host(expected)
    np.testing.assert_allclose(to_host(found), expected, atol=1e-5)
    model.classifier = replace(model.classifier, position=None)
    assert (classify(image, inside, model, here) != expected).any()


def test_stripes_of_the_cpu_are_numpy_and_share_their_memory():
    featuriser = Featuriser(QUICK.features)
    image = np.random.default_rng(0).random((20, 16), dtype=np.float32)
    inside = (slice(2, 18), slice(0, 16))
    stripes = [features for _, features in featuriser.stripes(image, inside, rows=8)]
    assert all(on_host(features) and features.dtype == np.float32 for features in stripes)
    assert np.shares_memory(stripes[0], stripes[1])  # one room for all: valid until the next


@pytest.mark.skipif(torch.cuda.is_available(), reason="CuPy is here where a GPU is")
def test_filters_on_a_gpu_say_which_extra_they_need():
    with pytest.raises(MissingExtraError, match=r"pip install 'hrvol\[gpu\]'"):
        Featuriser(QUICK.features, device="cuda").pixels(np.zeros((8, 8), np.float32), [1], [1])


needs_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


@pytest.mark.gpu
@needs_a_gpu
def test_stripes_of_a_gpu_are_tensors_that_stay_there():
    on_gpu, on_cpu = (Featuriser(QUICK.features, device=device) for device in ("cuda", "cpu"))
    image = np.random.default_rng(0).random((70, 64), dtype=np.float32)
    inside = (slice(2, 68), slice(0, 64))
    pairs = zip(on_gpu.stripes(image, inside, rows=32), on_cpu.stripes(image, inside, rows=32), strict=True)
    for (rows, there), (same_rows, here) in pairs:
        assert rows == same_rows
        assert there.is_cuda
        np.testing.assert_allclose(to_host(there), here, atol=1e-3)


@pytest.mark.gpu
@needs_a_gpu
def test_scores_of_clusters_on_a_gpu_are_those_of_the_cpu(data):
    image = data[0][0, :100, :50].astype(np.float32) / 255
    inside = (slice(5, 95), slice(8, 40))
    here, model = clustered(image)
    there = classify(image, inside, model, Featuriser(QUICK.features, device="cuda"))
    assert there.is_cuda
    np.testing.assert_allclose(to_host(there), classify(image, inside, model, here), atol=1e-2)


@pytest.mark.gpu
@needs_a_gpu
@pytest.mark.parametrize("kind", ["vote", "forest", "logistic", "ridge", "mlp", "boosting"])
def test_a_gpu_gives_the_probabilities_of_the_cpu(kind):
    spec = ClassifierSpec(kind=kind, trees=30, hidden=(16, 8))
    classifier = PixelClassifier.fit(samples(), spec)
    features = samples(count=5000).features
    found = classifier.predict_proba(torch.from_numpy(features).cuda())
    assert found.is_cuda
    assert found.dtype == torch.float32
    np.testing.assert_allclose(to_host(found), classifier.predict_proba(features), atol=1e-6)


@pytest.mark.gpu
@needs_a_gpu
def test_a_part_is_predicted_on_a_gpu_as_on_the_cpu(data, model):
    volume = open_volume(data[0])
    block = blocks(volume.shape, QUICK.tiles)[0]
    assert len(tiles_of(block, volume.shape[1:], QUICK.tiles)) == 1
    part = (slice(0, 1), *block.core[1:])
    raw = read_window(volume, block, part, model)
    here, there = (
        predict_part(raw, volume, block, part, model, Featuriser(QUICK.features, device=device)).labels
        for device in ("cpu", "cuda")
    )
    assert (here == there).mean() > 0.999  # filters differ by rounding


def test_trees_on_a_device_need_nvforest():
    try:
        import nvforest  # noqa: F401
    except ImportError:
        pass
    else:
        pytest.skip("nvForest is installed here")
    forest = PixelClassifier.fit(samples(), ClassifierSpec(kind="forest", trees=3)).members[0].estimator
    with pytest.raises(MissingExtraError, match=r"pip install 'hrvol\[gpu\]'"):
        device_probabilities("forest", forest, torch.zeros((4, 6)))
