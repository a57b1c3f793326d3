import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrvol.errors import InputError, ModelError, StrokesError
from hrvol.recipe.specs import ClassifierSpec
from hrvol.segment.estimators.estimators import CHUNK
from hrvol.segment.pixel_classifier import PixelClassifier
from hrvol.segment.strokes import Samples, StrokeBlock, choose_pixels, collect_samples

KINDS = ["vote", "forest", "logistic", "ridge", "mlp", "boosting"]
GROUPS = {"deep": slice(0, 4), "classical": slice(4, 6)}


def _strokes(seed=0, shape=(4, 12, 10), values=(1, 3)):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < 0.3, rng.choice(values, shape), 0).astype(np.uint8)


def _samples(n=300, seed=0, values=(1, 3, 7)):
    rng = np.random.default_rng(seed)
    labels = rng.choice(values, n).astype(np.uint16)
    features = rng.normal(size=(n, 6)) + labels[:, None] * [0.5, 0, 0, 0, 0.3, 0]
    return Samples(features.astype(np.float32), labels, np.zeros(n, np.int32))


def _fit(kind="forest", **options):
    spec = ClassifierSpec(kind=kind, trees=15, hidden=(16, 8))
    return PixelClassifier.fit(_samples(), spec, groups=GROUPS, **options)


def _same(a, b):
    return np.array_equal(a.where, b.where) and np.array_equal(a.labels, b.labels) and a.drawn == b.drawn


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    cut=st.tuples(st.integers(0, 4), st.integers(0, 12), st.integers(0, 10)),
    cap=st.sampled_from([1, 5, 20, None]),
    order=st.permutations(range(9)),
)
def test_the_choice_does_not_depend_on_the_blocks_or_their_order(seed, cut, cap, order):
    first, second = _strokes(), _strokes(1, (1, 9, 9), (1, 2))
    whole = [StrokeBlock(0, (0, 0, 0), first), StrokeBlock(1, (0, 0, 0), second)]
    pieces = [StrokeBlock(1, (0, 0, 0), second)]
    z, y, x = cut
    for part_z in (slice(0, z), slice(z, 4)):
        for part_y in (slice(0, y), slice(y, 12)):
            for part_x in (slice(0, x), slice(x, 10)):
                origin = (part_z.start, part_y.start, part_x.start)
                pieces.append(StrokeBlock(0, origin, first[part_z, part_y, part_x]))
    assert _same(choose_pixels(whole, cap, seed), choose_pixels([pieces[i] for i in order], cap, seed))


def test_positions_are_those_of_the_labels_in_order_and_capped():
    strokes = _strokes()
    chosen = choose_pixels([StrokeBlock(5, (10, 20, 30), strokes)], 7, seed=0)
    image, z, y, x = chosen.where.T
    assert (image == 5).all()
    assert np.array_equal(strokes[z - 10, y - 20, x - 30], chosen.labels)
    assert chosen.where.tolist() == sorted(chosen.where.tolist())
    assert len(set(map(tuple, chosen.where.tolist()))) == 14
    assert np.bincount(chosen.labels).tolist() == [0, 7, 0, 7]
    assert chosen.drawn == {v: int((strokes == v).sum()) for v in (1, 3)}


def test_the_choice_depends_on_the_seed_and_is_spread_evenly():
    everything = np.ones((1, 200, 200), np.uint8)
    everything[0, 0, 0] = 2
    a, b = (choose_pixels([StrokeBlock(0, (0, 0, 0), everything)], 4000, s) for s in (0, 1))
    shared = set(map(tuple, a.where.tolist())) & set(map(tuple, b.where.tolist()))
    assert 300 < len(shared) < 500  # a tenth by chance
    quadrants = np.bincount(2 * (a.where[:, 2] >= 100) + (a.where[:, 3] >= 100))
    assert (abs(quadrants - 1000) < 120).all()  # four standard deviations


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((1, 4, 4), np.uint8), "a.tif: found no labelled pixels"),
        (
            np.full((1, 4, 4), 2, np.uint8),
            "found only class 2 \\(16 pixels\\), expected at least two classes",
        ),
        (np.full((1, 4, 4), -1, np.int16), "found label -1"),
        (np.full((1, 4, 4), 70_000, np.int32), "found label 70000"),
        (np.ones((1, 4, 4), np.float32), "found 3-D strokes of float32"),
        (np.ones((4, 4), np.uint8), "found 2-D strokes"),
    ],
)
def test_strokes_that_cannot_train_are_refused(labels, message):
    with pytest.raises(StrokesError, match=message):
        choose_pixels([StrokeBlock(0, (0, 0, 0), labels)], 10, 0, "a.tif")


def test_a_grey_image_is_refused_as_strokes():
    grey = np.arange(1, 2001, dtype=np.uint16).reshape(1, 40, 50)
    with pytest.raises(StrokesError, match="grey image"):
        choose_pixels([StrokeBlock(0, (0, 0, 0), grey)], 10, 0)


def test_no_blocks_at_all_is_an_error_and_a_class_may_be_missing_in_one_volume():
    with pytest.raises(StrokesError, match="no labelled pixels"):
        choose_pixels([], 10, 0)
    ones, twos = np.ones((1, 4, 4), np.uint8), np.full((1, 4, 4), 2, np.uint8)
    chosen = choose_pixels([StrokeBlock(0, (0, 0, 0), ones), StrokeBlock(1, (0, 0, 0), twos)], 10, 0)
    assert chosen.drawn == {1: 16, 2: 16}


def test_samples_are_collected_plane_by_plane():
    strokes = _strokes()
    blocks = [StrokeBlock(0, (0, 0, 0), strokes), StrokeBlock(1, (0, 0, 0), strokes[:1])]
    chosen = choose_pixels(blocks, 30, 0)
    planes = []

    def features_at(image, z, y, x):
        planes.append((image, z))
        return np.stack([np.full(len(y), image), np.full(len(y), z), y, x], axis=1)

    samples = collect_samples(chosen, features_at)
    assert planes == sorted(set(planes))
    assert samples.features.dtype == np.float32
    assert np.array_equal(samples.features, chosen.where)
    assert samples.counts() == {1: 30, 3: 30}
    assert samples.counts(0)[1] + samples.counts(1)[1] == 30


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")  # too few pixels for the network to converge
@pytest.mark.parametrize("kind", KINDS)
def test_a_prediction_depends_on_the_pixel_alone(kind):
    classifier = _fit(kind)
    features = np.random.default_rng(3).normal(size=(2 * CHUNK + 777, 6)).astype(np.float32)
    whole = classifier.predict_proba(features)
    assert whole.dtype == np.float32
    assert whole.shape == (len(features), 3)
    assert np.allclose(whole.sum(axis=1), 1, atol=1e-6)
    assert np.array_equal(whole, classifier.predict_proba(features, threads=3))
    assert np.array_equal(whole[5:9], classifier.predict_proba(features[5:9]))
    assert np.array_equal(whole[3:5000], classifier.predict_proba(features[3:5000]))
    transposed = np.ascontiguousarray(features.T).T  # the layout of (C, Y, X) features
    assert np.array_equal(whole, classifier.predict_proba(transposed, threads=2))


def test_class_values_keep_their_gaps():
    classifier = _fit()
    assert classifier.classes == (1, 3, 7)
    labels = classifier.predict(_samples().features)
    assert set(labels.tolist()) == {1, 3, 7}
    assert (labels == _samples().labels).mean() > 0.9
    assert classifier.predict_proba(np.empty((0, 6), np.float32)).shape == (0, 3)


@pytest.mark.parametrize("kind", ["forest", "logistic"])
def test_product_multiplies_classical_deep_and_hybrid(kind):
    product = _fit(kind, combine="product")
    assert [(m.name, m.columns) for m in product.members] == [
        ("classical", slice(4, 6)),
        ("deep", slice(0, 4)),
        ("hybrid", slice(0, 6)),
    ]
    features = _samples(seed=1).features
    spec = ClassifierSpec(kind=kind, trees=15, hidden=(16, 8))
    base = _samples()
    expected = np.ones((300, 3))
    for part in (slice(4, 6), slice(0, 4), slice(0, 6)):
        alone = PixelClassifier.fit(Samples(base.features[:, part], base.labels, base.image), spec)
        expected *= np.maximum(alone.predict_proba(features[:, part]).astype(np.float64), 1e-6)
    expected /= expected.sum(axis=1, keepdims=True)
    assert np.allclose(product.predict_proba(features), expected, atol=1e-5)


def test_product_survives_forests_that_exclude_each_other():
    # Classical columns are certain of class 1, deep columns of class 2.
    n = 200
    rng = np.random.default_rng(0)
    labels = np.repeat([1, 2], n // 2).astype(np.uint16)
    features = np.repeat((labels * 10.0)[:, None], 6, axis=1) + rng.normal(size=(n, 6)) * 0.1
    samples = Samples(features.astype(np.float32), labels, np.zeros(n, np.int32))
    spec = ClassifierSpec(trees=10)
    classifier = PixelClassifier.fit(samples, spec, combine="product", groups=GROUPS)
    contradictory = np.array([[20, 20, 20, 20, 10, 10]], np.float32)
    p = classifier.predict_proba(contradictory)
    assert np.isfinite(p).all()
    assert p.sum() == pytest.approx(1)


def test_invalid_features_and_samples_are_refused():
    classifier = _fit()
    with pytest.raises(ModelError, match=r"found shape \(5, 4\), expected \(n, 6\)"):
        classifier.predict_proba(np.zeros((5, 4), np.float32))
    bad = np.zeros((5, 6), np.float32)
    bad[2, 1], bad[3, 0] = np.nan, np.inf
    with pytest.raises(InputError, match="NaN or infinity in 2 of 5 pixels"):
        classifier.predict_proba(bad)
    samples = _samples()
    with pytest.raises(InputError, match="NaN"):
        PixelClassifier.fit(Samples(bad, samples.labels[:5], samples.image[:5]), ClassifierSpec())
    with pytest.raises(StrokesError, match=r"found classes \[1\]"):
        PixelClassifier.fit(_samples(values=(1,)), ClassifierSpec())
    with pytest.raises(InputError, match="expected classical and deep"):
        PixelClassifier.fit(samples, ClassifierSpec(), combine="product", groups={"deep": slice(0, 6)})


def test_the_number_of_pixels_does_not_change_a_matrix_product():
    # As many columns as real features: fewer do not reach the code paths of BLAS that differ.
    rng = np.random.default_rng(0)
    features = rng.normal(size=(600, 446)).astype(np.float32)
    labels = (1 + (features[:, 0] > 0)).astype(np.uint16)
    samples = Samples(features, labels, np.zeros(600, np.int32))
    for kind in ("vote", "logistic", "ridge", "mlp"):
        classifier = PixelClassifier.fit(samples, ClassifierSpec(kind=kind, max_iter=200, trees=10))
        whole = classifier.predict_proba(features)
        for n in (1, 2, 3, 17, 333):
            assert np.array_equal(whole[:n], classifier.predict_proba(features[:n])), (kind, n)


def test_forests_predict_on_one_job_however_they_were_fitted():
    # Several jobs sum the trees in the order in which they finish.
    assert _fit(n_jobs=2).members[0].estimator.n_jobs == 1
