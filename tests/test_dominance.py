"""Non-dominated layers, crowding and hypervolume against the plainest code there is."""

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pnas_fast.objectives.dominance import choose, first_layers, least_crowded
from pnas_fast.objectives.hypervolume import hypervolume
from pnas_fast.surrogate import select_top

Points = npt.NDArray[np.float64]


def dominates(one: Points, other: Points) -> bool:
    return bool((one <= other).all() and (one < other).any())


def layers_of(points: Points) -> list[int]:
    """Layer by layer, every point with every other."""
    layers, left, layer = [-1] * len(points), set(range(len(points))), 0
    while left:
        front = {i for i in left if not any(dominates(points[j], points[i]) for j in left)}
        for index in front:
            layers[index] = layer
        left, layer = left - front, layer + 1
    return layers


def made_up(seed: int, count: int, objectives: int, values: int, tilt: float) -> Points:
    """Points with ties; with a tilt they trade off, and layers are large."""
    rng = np.random.default_rng(seed)
    points = rng.integers(0, values, (count, objectives)).astype(np.float64)
    points[:, 0] -= tilt * points[:, 1:].sum(axis=1)
    return points


POINTS = st.builds(
    made_up, st.integers(0, 999), st.integers(1, 60), st.integers(1, 5), st.integers(1, 20),
    st.sampled_from([0.0, 0.5, 1.0]),
)  # fmt: skip


def check_layers(points: Points, k: int, expected: list[int]) -> None:
    found, layers = first_layers(points, k)
    needed = sorted(expected)[min(k, len(points)) - 1]
    assert dict(zip(found.tolist(), layers.tolist(), strict=True)) == {
        index: layer for index, layer in enumerate(expected) if layer <= needed
    }


@given(POINTS, st.integers(1, 70))
def test_layers_are_those_of_brute_force(points: Points, k: int) -> None:
    check_layers(points, k, layers_of(points))


def layers_of_many(points: Points) -> list[int]:
    """As `layers_of`, with all comparisons at once."""
    one, other = points[:, np.newaxis], points
    worse = np.array((one >= other).all(axis=2) & (one > other).any(axis=2))
    layers, left = np.zeros(len(points), np.int64), np.ones(len(points), np.bool_)
    for layer in itertools.count():
        front = left & ~worse[:, left].any(axis=1)
        layers[front] = layer
        left &= ~front
        if not left.any():
            break
    return layers.tolist()


@pytest.mark.parametrize(("objectives", "tilt"), [(2, 0.0), (2, 1.0), (3, 0.0), (3, 1.0), (4, 0.3)])
def test_many_points_have_the_layers_of_brute_force(objectives: int, tilt: float) -> None:
    points = made_up(7, 1000, objectives, 400, tilt)
    expected = layers_of_many(points)
    for k in (1, 40, 300):
        check_layers(points, k, expected)


@given(POINTS, st.integers(1, 70), st.randoms(use_true_random=False))
def test_the_order_of_points_has_no_say_in_which_are_chosen(points: Points, k: int, chance: object) -> None:
    keys = np.random.default_rng(len(points)).permutation(len(points)).astype(np.uint64)
    order = np.random.default_rng(chance.randrange(99)).permutation(len(points))  # type: ignore[attr-defined]
    one = keys[choose(points, k, lambda rows: keys[rows])]
    other = keys[order][choose(points[order], k, lambda rows: keys[order][rows])]
    assert one.tolist() == other.tolist()
    assert len(set(one.tolist())) == min(k, len(points))


@given(POINTS, st.integers(1, 70))
def test_whole_layers_are_chosen_but_for_the_last(points: Points, k: int) -> None:
    expected = layers_of(points)
    keys = np.arange(len(points), dtype=np.uint64)[::-1]
    chosen = choose(points, k, lambda rows: keys[rows])
    assert sorted(expected[index] for index in chosen) == sorted(expected)[: len(chosen)]
    order = [(expected[index], *points[index], keys[index]) for index in chosen]
    assert order == sorted(order)


@given(st.integers(0, 999), st.integers(1, 50), st.integers(1, 30))
def test_one_objective_gives_the_choice_of_top_values(seed: int, count: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 9, count) / 8
    keys = rng.permutation(count).astype(np.uint64)
    chosen = choose(-values[:, np.newaxis], k, lambda rows: keys[rows])
    assert chosen.tolist() == select_top(values, keys, k).tolist()


def test_the_least_crowded_are_the_ends_then_what_stands_apart_and_copies_come_last() -> None:
    points = np.array([[0, 10], [1, 9], [1, 9], [2, 8], [6, 4], [10, 0.0]])
    keys = np.array([5, 4, 3, 2, 1, 0], np.uint64)
    # Distances: the ends are endless, then 0.8 + 0.8 (of 10) for (6, 4), 0.5 + 0.5 and 0.2 + 0.2.
    assert least_crowded(points, keys).tolist() == [5, 0, 4, 3, 2, 1]


@pytest.mark.parametrize(
    ("points", "k", "found"),
    [
        (np.zeros((3, 2)), 0, "k is 0"),
        (np.array([[0.0, np.nan]]), 1, "finite"),
        (np.array([[0.0, np.inf]]), 1, "finite"),
        (np.zeros(3), 1, r"shape \(3,\)"),
    ],
)
def test_what_has_no_order_is_refused(points: Points, k: int, found: str) -> None:
    with pytest.raises(ValueError, match=found):
        choose(points, k, lambda rows: rows.astype(np.uint64))


def test_no_points_have_no_layers() -> None:
    assert choose(np.empty((0, 3)), 4, lambda rows: rows.astype(np.uint64)).tolist() == []


@settings(max_examples=60)
@given(st.integers(0, 999), st.integers(0, 12), st.integers(1, 4))
def test_the_hypervolume_is_the_cells_of_a_grid_that_are_covered(
    seed: int, count: int, objectives: int
) -> None:
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 7, (count, objectives)).astype(np.float64)
    reference = rng.integers(3, 7, objectives).astype(np.float64)
    corners = itertools.product(*(range(int(side)) for side in reference))
    covered = sum(bool((points <= np.array(corner)).all(axis=1).any()) for corner in corners)
    assert hypervolume(points, reference) == covered


def test_a_hypervolume_needs_a_reference_of_its_objectives() -> None:
    with pytest.raises(ValueError, match=r"reference \(2,\)"):
        hypervolume(np.zeros((1, 3)), np.zeros(2))
    with pytest.raises(ValueError, match="finite"):
        hypervolume(np.zeros((1, 1)), np.array([np.inf]))
    assert hypervolume(np.array([[0.25, 0.5], [0.75, 0.25]]), np.ones(2)) == 0.75 * 0.5 + 0.25 * 0.25
