"""What a bounded memory keeps, and whom it tells of what it drops."""

from __future__ import annotations

from collections import OrderedDict

from hypothesis import given
from hypothesis import strategies as st

from shardlift.bounded import Bounded

_KEYS = st.integers(0, 5)
_ACTS = st.lists(st.one_of(st.tuples(_KEYS), st.tuples(_KEYS, st.integers(1, 6))), max_size=60)


@given(_ACTS)
def test_no_more_is_kept_than_allowed_and_each_that_goes_is_told_of_once(acts: list[tuple[int, ...]]) -> None:
    gone: list[int] = []
    memory: Bounded[int, int] = Bounded(10, gone.append)
    weights: dict[int, int] = {}
    for number, (key, *weight) in enumerate(acts):
        if weight:
            weights[number] = weight[0]
            memory.put(key, number, weight[0])
        else:
            memory.get(key)
        kept = [value for key in range(6) if (value := memory.get(key)) is not None]
        assert sum(weights[value] for value in kept) <= 10
        assert sorted([*kept, *gone]) == sorted(weights)


@given(st.lists(st.tuples(_KEYS, st.booleans()), max_size=60))
def test_what_goes_is_what_was_used_longest_ago(acts: list[tuple[int, bool]]) -> None:
    """With one use between two puts, the order of use is the exact one."""
    memory: Bounded[int, int] = Bounded(3)
    model: OrderedDict[int, int] = OrderedDict()
    for number, (key, used) in enumerate(acts):
        memory.put(key, number)
        model.pop(key, None)
        model[key] = number
        if len(model) > 3:
            model.popitem(last=False)
        wanted = next(iter(model))
        if used:
            assert memory.get(wanted) == model[wanted]
            model.move_to_end(wanted)
        assert [one in memory for one in range(6)] == [one in model for one in range(6)]


def test_what_is_too_heavy_is_not_kept() -> None:
    gone: list[str] = []
    memory: Bounded[str, str] = Bounded(3, gone.append)
    memory.put("a", "light", 1)
    memory.put("a", "heavy", 4)
    assert memory.get("a") is None
    assert gone == ["light", "heavy"]
