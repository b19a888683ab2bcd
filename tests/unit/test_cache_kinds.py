"""Kinds of feature caches: their names, and the number of memory frames of every window."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geomem.formats.cache_kinds import CacheKind

memory_kinds = st.builds(
    lambda ends, selection: CacheKind(fewest=min(ends), most=max(ends), selection=selection),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from(["time", "overlap"]),
)


@given(kind=memory_kinds | st.just(CacheKind()))
def test_a_kind_is_what_its_name_says(kind: CacheKind) -> None:
    assert CacheKind.parse(kind.name) == kind


@given(kinds=st.sets(memory_kinds | st.just(CacheKind()), min_size=2))
def test_kinds_that_differ_have_names_that_differ(kinds: set[CacheKind]) -> None:
    assert len({kind.name for kind in kinds}) == len(kinds)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (CacheKind(), "window"),
        (CacheKind(fewest=4, most=4), "memory4"),
        (CacheKind(fewest=4, most=4, selection="overlap"), "memory4_overlap"),
        (CacheKind(fewest=1, most=8), "memory1to8"),
        (CacheKind(fewest=1, most=8, selection="overlap"), "memory1to8_overlap"),
    ],
)
def test_names_by_hand(kind: CacheKind, name: str) -> None:
    assert kind.name == name
    assert CacheKind.parse(name) == kind
    assert kind.of_window == (name == "window")


@pytest.mark.parametrize(
    "name",
    ["", "memory", "memory4to", "memory_time", "Window", "memory4 ", "memory0", "memory8to1"],
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is no kind of cache"):
        CacheKind.parse(name)


@given(kind=memory_kinds, row=st.integers(0, 10**6))
def test_the_number_is_within_range_and_the_same_each_time(kind: CacheKind, row: int) -> None:
    number = kind.number(row)
    assert kind.fewest <= number <= kind.most
    assert CacheKind.parse(kind.name).number(row) == number


def test_over_the_windows_of_a_plan_every_number_comes_about_equally_often() -> None:
    kind = CacheKind(fewest=1, most=4)
    numbers = [kind.number(row) for row in range(2000)]
    assert all(400 < numbers.count(number) < 600 for number in range(1, 5))
    # a longer plan begins with the same numbers, whatever the order in which parts are made
    assert numbers[:50] == [kind.number(row) for row in reversed(range(50))][::-1]
