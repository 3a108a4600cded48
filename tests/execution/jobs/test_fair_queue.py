"""Each identity has its turn, and within one it is first in, first out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from remsvc.execution.jobs.slots import FairQueue

# With "get": the identities that are ready.
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from("abc")),
        st.tuples(st.just("get"), st.sets(st.sampled_from("abc"))),
        st.tuples(st.just("remove"), st.integers(0, 20)),
    )
)


@given(ACTIONS)
def test_against_a_simple_model(actions: list[tuple[str, object]]) -> None:
    """The model: lanes, each an identity and its items. The first one is served, and goes last."""
    queue: FairQueue[int] = FairQueue()
    lanes: list[tuple[str, list[int]]] = []
    put = 0
    for action, argument in actions:
        waiting = [item for _, items in lanes for item in items]
        if action == "put":
            assert isinstance(argument, str)
            queue.put(argument, put)
            for identity, items in lanes:
                if identity == argument:
                    items.append(put)
                    break
            else:
                lanes.append((argument, [put]))
            put += 1
        elif action == "get":
            assert isinstance(argument, set)
            ready = [lane for lane in lanes if lane[0] in argument]
            assert queue.any_ready(argument.__contains__) == bool(ready)
            expected = None
            if ready:
                lanes.remove(ready[0])
                expected = ready[0][1].pop(0)
                if ready[0][1]:
                    lanes.append(ready[0])
            assert queue.get(argument.__contains__) == expected
        elif action == "remove":
            assert isinstance(argument, int)
            assert queue.remove(argument) == (argument in waiting)
            lanes = [(identity, [item for item in items if item != argument]) for identity, items in lanes]
            lanes = [lane for lane in lanes if lane[1]]
        waiting = [item for _, items in lanes for item in items]
        assert len(queue) == len(waiting)
        assert all(queue.waiting(name) == len(dict(lanes).get(name, [])) for name in "abc")
        assert bool(queue) == bool(waiting)
        assert all((item in queue) == (item in waiting) for item in range(put + 1))


@given(st.lists(st.sampled_from("abcd"), min_size=1))
def test_nobody_waits_for_more_than_one_of_each_other(identities: list[str]) -> None:
    queue: FairQueue[int] = FairQueue()
    for item, identity in enumerate(identities):
        queue.put(identity, item)
    served = [identities[queue.get()] for _ in identities]
    assert sorted(served) == sorted(identities)
    for place, identity in enumerate(served):
        rest = served[place + 1 :]
        if identity in rest:
            between = rest[: rest.index(identity)]
            assert len(set(between)) == len(between)
