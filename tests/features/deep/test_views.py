import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from hrvol.features.deep.views import (
    IDENTITY,
    Chain,
    Flip,
    Rotate90,
    Shift,
    combine,
    flips,
    rotations,
    shifts,
    symmetries,
    transposes,
)

single = st.one_of(
    st.builds(Shift, st.integers(-9, 9), st.integers(-9, 9)),
    st.builds(Flip, st.sampled_from(["y", "x"])),
    st.builds(Rotate90, st.integers(-5, 5)),
)
chains = st.recursive(
    single, lambda inner: st.builds(Chain, st.lists(inner, max_size=4).map(tuple)), max_leaves=8
)


@given(chains, st.integers(1, 12), st.integers(1, 12), st.booleans())
def test_undo_is_the_exact_inverse_of_apply(view, height, width, as_tensor):
    x = np.arange(2 * height * width).reshape(2, height, width)
    x = torch.from_numpy(x) if as_tensor else x
    assert (view.undo(view.apply(x)) == x).all()
    assert (view.apply(view.undo(x)) == x).all()


@given(chains, st.integers(1, 9), st.integers(1, 9))
def test_where_says_what_apply_does(view, height, width):
    x = np.arange(height * width).reshape(height, width)
    seen = view.apply(x)
    y0, x0 = np.divmod(x, width)
    y1, x1 = view.where(y0 + 0.5, x0 + 0.5, x.shape)
    assert (seen[np.floor(y1).astype(int), np.floor(x1).astype(int)] == x).all()


def test_undoing_in_forward_order_would_displace():
    # what the reference code does: the same order for the inverses
    chain = Chain((Shift(0, 2), Flip("x")))
    x = np.arange(10)[None]
    wrong = chain.apply(x)
    for view in chain.views:
        wrong = view.undo(wrong)
    assert (wrong == np.roll(x, 4)).all()
    assert (chain.undo(chain.apply(x)) == x).all()


def test_published_sets():
    assert len(shifts([1, 2])) == 17
    assert len(shifts([1, 2], "von_neumann")) == 9
    assert set(shifts([3], "von_neumann")[1:]) == {Shift(-3, 0), Shift(3, 0), Shift(0, -3), Shift(0, 3)}
    assert flips("published") == (IDENTITY, Flip("x"), IDENTITY, Flip("y"))
    assert len(combine(shifts([1, 2]), flips("published"))) == 68  # paper, section S7
    assert len(set(rotations())) == 4
    assert combine() == (IDENTITY,)


def test_the_mirror_group_has_no_preferred_direction():
    images = [view.apply(np.array([[1, 0], [0, 0]])) for view in flips()]
    assert (sum(images) == 1).all()


def test_a_square_has_eight_symmetries():
    image = np.arange(9).reshape(3, 3)
    views = symmetries()
    seen = {view.apply(image).tobytes() for view in views}
    assert len(views) == len(seen) == 8
    turned = {view.apply(view2.apply(image)).tobytes() for view in rotations() for view2 in flips()}
    assert seen == turned
    assert sum(transposes(view) for view in views) == 4
