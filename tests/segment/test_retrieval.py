import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hrvol.errors import InputError
from hrvol.segment import retrieval
from hrvol.segment.retrieval import Match, query_vectors, similarity, top_matches

few = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**32 - 1)


def make(seed, shape=(16, 21, 33)):
    """Random features in the memory order of a Featuriser: channels last."""
    channels, height, width = shape
    values = np.random.default_rng(seed).normal(size=(height, width, channels)).astype(np.float32)
    return values.transpose(2, 0, 1)


def cosine(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


@few
@given(seeds)
def test_similarity_is_the_cosine(seed):
    features = make(seed, (7, 5, 6))
    query = np.random.default_rng(seed + 1).normal(size=(3, 7)) * 20
    maps = similarity(features, query)
    assert maps.shape == (3, 5, 6)
    assert maps.dtype == np.float32
    expected = [[[cosine(q, features[:, y, x]) for x in range(6)] for y in range(5)] for q in query]
    np.testing.assert_allclose(maps, expected, atol=2e-6)
    np.testing.assert_array_equal(similarity(features, query[0]), maps[:1])


@few
@given(seeds)
def test_a_point_is_most_similar_to_itself(seed):
    features = make(seed)
    points = np.random.default_rng(seed).integers(0, features.shape[1:], (5, 2))
    queries = query_vectors(features, points)
    assert queries.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, rtol=1e-6)
    maps = similarity(features, queries)
    assert np.abs(maps).max() <= 1
    for (y, x), heat in zip(points.tolist(), maps, strict=True):
        assert heat[y, x] == pytest.approx(1, abs=1e-6)
        (match,) = top_matches(heat, 1, 3)
        assert (match.y, match.x) == (y, x)
        assert match.similarity == heat[y, x] == heat.max()


def test_planted_vectors_are_found():
    features_a, features_b = make(0, (32, 40, 50)), make(1, (32, 60, 45))
    positions = [(0, 0), (59, 44), (30, 7)]
    points = [(3, 4), (39, 49), (20, 20)]
    for (ya, xa), (yb, xb) in zip(points, positions, strict=True):
        features_b[:, yb, xb] = 5 * features_a[:, ya, xa] + 0.1
    maps = similarity(features_b, query_vectors(features_a, points))
    matches = [match for heat in maps for match in top_matches(heat, 1, 5)]
    assert [(match.y, match.x) for match in matches] == positions
    assert all(0.95 < match.similarity <= 1 for match in matches)


def test_several_copies_are_in_decreasing_order():
    features = make(2, (64, 50, 60))
    query = features[:, 25, 30].copy()
    for noise, (y, x) in [(0.5, (49, 59)), (0.2, (0, 10)), (0.9, (5, 40))]:
        features[:, y, x] = query + noise * np.random.default_rng(y).normal(size=64)
    matches = top_matches(similarity(features, query)[0], 4, 5)
    assert [(match.y, match.x) for match in matches] == [(25, 30), (0, 10), (49, 59), (5, 40)]
    assert [match.similarity for match in matches] == sorted((m.similarity for m in matches), reverse=True)


@few
@given(seeds, st.floats(1e-3, 1e3))
def test_the_length_of_features_does_not_matter(seed, scale):
    features = make(seed, (16, 9, 8))
    lengths = np.random.default_rng(seed).uniform(0.1, 10, (9, 8)).astype(np.float32)
    query = query_vectors(features, [(4, 4)])
    plain = similarity(features, query)
    np.testing.assert_allclose(similarity(features * np.float32(scale), query), plain, atol=1e-6)
    np.testing.assert_allclose(similarity(features * lengths, query * scale), plain, atol=1e-6)
    np.testing.assert_allclose(similarity(-features, query), -plain, atol=1e-6)


@few
@given(seeds, st.integers(1, 20), st.integers(1, 32), st.sampled_from([1, 7, 50, 10_000]))
def test_tiles_pasted_together_are_the_whole_to_the_bit(seed, y, x, chunk):
    features = make(seed)
    queries = query_vectors(features, [(0, 0), (20, 32), (7, 9)])
    whole = similarity(features, queries)
    pasted = np.full_like(whole, np.nan)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "CHUNK", chunk)
        for tile in ((slice(y), slice(x)), (slice(y), slice(x, None)), (slice(y, None), slice(None))):
            # A tile's features have strides of their own, here those of a plane for each channel.
            pasted[:, *tile] = similarity(np.ascontiguousarray(features[:, *tile]), queries)
    np.testing.assert_array_equal(pasted, whole)
    np.testing.assert_array_equal(similarity(features, queries[1])[0], whole[1])


def test_torch_and_numpy_agree():
    features = make(3)
    tensor = torch.from_numpy(features.transpose(1, 2, 0)).permute(2, 0, 1).requires_grad_()
    points = [(1, 2), (20, 32)]
    queries = query_vectors(features, points)
    np.testing.assert_array_equal(query_vectors(tensor, np.array(points)), queries)
    maps = similarity(features, queries)
    assert isinstance(similarity(tensor, queries), np.ndarray)
    np.testing.assert_array_equal(similarity(tensor, torch.from_numpy(queries)), maps)
    np.testing.assert_array_equal(similarity(tensor.contiguous(), queries), maps)
    assert top_matches(torch.from_numpy(maps[0]), 3, 2) == top_matches(maps[0], 3, 2)
    for half in (tensor.half(), tensor.bfloat16(), features.astype(np.float16)):
        np.testing.assert_allclose(similarity(half, queries), maps, atol=2e-2)


def test_pixels_without_features_have_similarity_0():
    features = make(4)
    features[:, 3, 5] = 0
    maps = similarity(features, query_vectors(features, [(0, 0), (1, 1)]))
    assert (maps[:, 3, 5] == 0).all()
    assert (maps != 0).sum() == maps.size - 2


@pytest.mark.parametrize("kind", ["pixels", "planes", "torch", "half"])
def test_features_are_never_copied_as_a_whole(kind):
    features = make(5, (64, 256, 256))
    given = {
        "pixels": features,
        "planes": np.ascontiguousarray(features) if kind == "planes" else None,
        "torch": torch.from_numpy(features),
        "half": features.astype(np.float16) if kind == "half" else None,
    }[kind]
    queries = query_vectors(features, [(0, 0), (100, 100)])
    tracemalloc.start()
    try:
        maps = similarity(given, queries)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - maps.nbytes < features.nbytes / 20


def plain_peaks(heat, k, distance):
    """The definition, pixel by pixel."""
    height, width = heat.shape
    peaks = [
        (y, x)
        for y in range(height)
        for x in range(width)
        if heat[y, x]
        == heat[max(0, y - distance) : y + distance + 1, max(0, x - distance) : x + distance + 1].max()
    ]
    chosen = []
    for y, x in sorted(peaks, key=lambda position: -heat[position]):
        if all(max(abs(y - v), abs(x - u)) > distance for v, u in chosen):
            chosen.append((y, x))
    return tuple(Match(y, x, float(heat[y, x])) for y, x in chosen[:k])


@few
@given(
    arrays(
        np.float32,
        st.tuples(st.integers(1, 12), st.integers(1, 12)),
        elements=st.sampled_from([-1, 0, 0.5, 1]),
    ),
    st.integers(1, 8),
    st.integers(0, 15),
)
def test_peaks_match_the_definition_also_with_many_equal_values(heat, k, distance):
    assert top_matches(heat, k, distance) == plain_peaks(heat, k, distance)


@few
@given(seeds, st.integers(1, 20), st.integers(0, 6))
def test_peaks_are_apart_and_in_decreasing_order(seed, k, distance):
    heat = np.random.default_rng(seed).uniform(-1, 1, (20, 25)).astype(np.float32)
    matches = top_matches(heat, k, distance)
    assert len(matches) <= k
    assert matches == plain_peaks(heat, k, distance)
    assert matches[0].similarity == heat.max()
    for i, a in enumerate(matches):
        assert heat[a.y, a.x] == a.similarity
        for b in matches[:i]:
            assert b.similarity >= a.similarity
            assert np.hypot(a.y - b.y, a.x - b.x) > distance


def test_of_equals_the_first_in_row_major_order_comes_first():
    assert top_matches(np.ones((4, 9), np.float32), 9, 3) == (Match(0, 0, 1), Match(0, 4, 1), Match(0, 8, 1))
    features = np.ones((2, 50, 60), np.float32)
    (heat,) = similarity(features, query_vectors(features, [(49, 59)]))
    assert top_matches(heat, 1, 5) == (Match(0, 0, pytest.approx(1)),)


def test_the_flank_of_a_peak_is_no_match():
    heat = 1 - np.abs(np.arange(-10, 11, dtype=np.float32)[None] * np.ones((5, 1), np.float32)) / 100
    heat[:, 0] += 0.05
    assert [(m.y, m.x) for m in top_matches(heat, 5, 4)] == [(0, 10), (0, 0)]


def test_invalid_points_queries_and_features_are_refused():
    features = make(6)
    features[:, 2, 2] = 0
    for point in [(21, 0), (0, 33), (-1, 5)]:
        with pytest.raises(
            InputError, match=rf"found y={point[0]}, x={point[1]}, expected 0 <= y < 21 and 0 <= x < 33"
        ):
            query_vectors(features, [(1, 1), point])
    with pytest.raises(InputError, match=r"point y=2, x=2: found features of length 0\.0"):
        query_vectors(features, [(1, 1), (2, 2)])
    for points in ([(1.5, 2.0)], [1, 2], [(1, 2, 3)]):
        with pytest.raises(InputError, match=r"expected \(n, 2\) integers y, x"):
            query_vectors(features, points)
    with pytest.raises(InputError, match="query 1: found features of length 0"):
        similarity(features, np.array([np.ones(16), np.zeros(16)]))
    with pytest.raises(InputError, match=r"query: found shape \(2, 15\), expected \(n, 16\)"):
        similarity(features, np.ones((2, 15)))
    with pytest.raises(InputError, match=r"found shape \(16, 21\), expected \(C, Y, X\)"):
        similarity(features[:, :, 0], np.ones(16))
    for value in (np.nan, np.inf, 1e30):
        broken = features.copy()
        broken[3, 20, 32] = value
        with pytest.raises(InputError, match="features: lengths: found NaN or infinity"):
            similarity(broken, np.ones(16))


def test_invalid_similarity_maps_are_refused():
    with pytest.raises(InputError, match=r"found shape \(1, 3, 3\), expected \(Y, X\)"):
        top_matches(np.zeros((1, 3, 3), np.float32), 1, 1)
    with pytest.raises(InputError, match="similarity map: found NaN"):
        top_matches(np.full((3, 3), np.nan, np.float32), 1, 1)
    for k, distance in ((0, 1), (1, -1)):
        with pytest.raises(InputError, match=f"found k={k}, min_distance={distance}"):
            top_matches(np.zeros((3, 3), np.float32), k, distance)
