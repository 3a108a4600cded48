"""Token buckets against a simple model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remsvc.server.bounds.rate_limit import Rate, RateLimiter


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@given(
    st.integers(1, 5),
    st.sampled_from([1.0, 60.0]),
    st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 30))),
)
def test_against_a_bucket(count: int, seconds: float, calls: list[tuple[str, float]]) -> None:
    clock, rate = Clock(), Rate(count, seconds)
    limiter = RateLimiter(clock)
    buckets = {"a": (float(count), clock.now), "b": (float(count), clock.now)}
    for identity, pause in calls:
        clock.now += pause
        tokens, then = buckets[identity]
        tokens = min(count, tokens + (clock.now - then) * count / seconds)
        wait = limiter.take(identity, rate)
        if abs(tokens - 1) > 1e-3:  # not where rounding decides
            assert (wait == 0) == (tokens > 1)
        if wait:
            assert wait == pytest.approx((1 - tokens) * seconds / count, abs=1e-3)
        buckets[identity] = (tokens - (wait == 0), clock.now)


def test_waiting_as_long_as_told_suffices() -> None:
    clock, rate = Clock(), Rate(3, 60.0)
    limiter = RateLimiter(clock)
    for _ in range(20):
        while not (wait := limiter.take("a", rate)):
            pass
        clock.now += wait
        assert limiter.take("a", rate) == 0
