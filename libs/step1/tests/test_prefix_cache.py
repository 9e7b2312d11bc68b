import pytest
import torch
from step1.engine.prefix_cache import PrefixCache

pytestmark = pytest.mark.unit

TOKEN_BYTES = 2 * 2 * 2 * 4 * 4


def stored(length):
    return torch.zeros(2, 2, 2, length, 4)


def test_the_longest_common_beginning_is_found():
    cache = PrefixCache(10_000)
    cache.store([1, 2, 3, 4], stored(4))
    cache.store([1, 2, 9], stored(3))
    assert cache.lookup([1, 2, 3, 7])[0] == 3
    assert cache.lookup([1, 2, 9, 9])[0] == 3
    assert cache.lookup([1, 2, 3, 4, 5])[0] == 4
    assert cache.lookup([2]) == (0, None)
    assert cache.lookup([]) == (0, None)


def test_an_entry_that_another_begins_with_is_dropped():
    cache = PrefixCache(10_000)
    cache.store([1, 2], stored(2))
    cache.store([1, 2, 3], stored(3))
    assert len(cache) == 1
    assert not cache.wants([1, 2])
    assert not cache.wants([1, 2, 3])
    assert cache.wants([1, 2, 3, 4])


def test_the_least_recently_used_goes_first_and_the_budget_holds():
    cache = PrefixCache(5 * TOKEN_BYTES)
    cache.store([1, 1], stored(2))
    cache.store([2, 2], stored(2))
    cache.lookup([1])
    cache.store([3, 3], stored(2))
    assert [cache.lookup([token])[0] for token in (1, 2, 3)] == [1, 0, 1]
    cache.store([4] * 6, stored(6))
    assert cache.lookup([4])[0] == 0


def test_no_budget_keeps_nothing():
    cache = PrefixCache(0)
    assert not cache.wants([1])
    cache.store([1], stored(1))
    assert len(cache) == 0
