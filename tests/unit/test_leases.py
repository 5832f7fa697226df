"""The lease table: what is free, and when."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arrayhost.core.leases import LeaseTable


@pytest.fixture
def table() -> LeaseTable:
    table = LeaseTable(handle_grace=10.0)
    table.add(1)
    return table


def test_the_last_release_frees(table: LeaseTable) -> None:
    table.grant(1, "a", 2)
    table.grant(1, "b")
    assert set(table.holders(1)) == {"a", "b"}
    assert len(table) == 2
    assert not table.release(1, "a", 1, 0.0)
    assert table.has(1, "a")
    assert not table.release(1, "a", 1, 0.0)
    assert not table.has(1, "a")
    assert table.release(1, "b", 1, 0.0)


def test_a_release_may_overtake_its_grant(table: LeaseTable) -> None:
    table.grant(1, "a")
    assert not table.release(1, "a", 2, 0.0)  # the second grant is still on its way
    table.grant(1, "a")
    assert not table.has(1, "a")
    assert list(table.holders(1)) == []


def test_an_unknown_referent() -> None:
    table = LeaseTable(1.0)
    with pytest.raises(KeyError):
        table.grant(7, "a")
    assert not table.release(7, "a", 1, 0.0)
    table.export(7, 0.0)
    table.forget(7)
    assert table.holders(7) == []
    assert not table.has(7, "a")
    assert table.next_expiry() is None


def test_a_dead_holder_frees_what_only_it_held(table: LeaseTable) -> None:
    table.add(2)
    table.add(3)
    for ident in (1, 2, 3):
        table.grant(ident, "dead", 5)
    table.grant(2, "alive")
    assert table.holdings("dead") == {1, 2, 3}
    assert table.drop_holder("dead", 0.0) == [1, 3]
    assert table.holdings("dead") == frozenset()
    assert table.drop_holder("dead", 0.0) == []
    assert table.holders(2) == ["alive"]


def test_an_exported_referent_outlives_its_last_lease_by_the_grace(table: LeaseTable) -> None:
    table.grant(1, "a")
    table.export(1, 0.0)
    assert table.next_expiry() is None
    assert not table.release(1, "a", 1, now=5.0)
    assert table.next_expiry() == 15.0
    assert table.expire(14.9) == []
    assert table.expire(15.0) == [1]
    assert table.expire(100.0) == []


def test_a_grant_within_the_grace_keeps_it(table: LeaseTable) -> None:
    table.grant(1, "a")
    table.export(1, 0.0)
    table.release(1, "a", 1, 0.0)
    table.grant(1, "b")
    assert table.expire(1000.0) == []
    assert table.drop_holder("b", 1000.0) == []  # the grace begins again
    assert table.expire(1009.0) == []
    assert table.expire(1010.0) == [1]


def test_without_grace_an_exported_referent_ends_at_once() -> None:
    table = LeaseTable(0.0)
    table.add(1)
    table.grant(1, "a")
    table.export(1, 0.0)
    table.release(1, "a", 1, 3.0)
    assert table.expire(3.0) == [1]


def test_a_forgotten_referent_never_expires(table: LeaseTable) -> None:
    table.grant(1, "a")
    table.export(1, 0.0)
    table.release(1, "a", 1, 0.0)
    table.forget(1)
    assert table.expire(1000.0) == []
    assert len(table) == 0


def test_copying_a_holder_gives_one_lease_of_each(table: LeaseTable) -> None:
    table.add(2)
    table.grant(1, "parent", 3)
    table.grant(2, "parent", -1)  # a release that came first: not held
    table.copy_holder("parent", "child")
    assert table.holdings("child") == {1}
    assert table.release(1, "parent", 3, 0.0) is False
    assert table.release(1, "child", 1, 0.0) is True


@pytest.mark.parametrize("end", ["release", "forget", "drop"])
def test_nothing_is_kept_of_holders_that_hold_nothing(end: str) -> None:
    table = LeaseTable(0.0)
    for ident in range(50):  # a name is a holder, and there may be ever new names
        holder = ("name", str(ident))
        table.add(ident)
        table.grant(ident, holder)
        if end == "release":
            assert table.release(ident, holder, 1, 0.0)
        elif end == "drop":
            assert table.drop_holder(holder, 0.0) == [ident]
        table.forget(ident)
    assert not table._by_holder


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from("abc"), st.integers(1, 3)), max_size=40))
def test_whatever_the_order_everything_returned_is_free(steps: list[tuple[int, str, int]]) -> None:
    table = LeaseTable(0.0)
    given_out: Counter[tuple[int, str]] = Counter()
    for ident in range(3):
        table.add(ident)
    for ident, holder, count in steps:
        table.grant(ident, holder, count)
        given_out[ident, holder] += count
    for ident in range(3):
        mine = [key for key in given_out if key[0] == ident]
        assert set(table.holders(ident)) == {holder for _, holder in mine}
        freed = [table.release(ident, holder, given_out[ident, holder], 0.0) for _, holder in mine]
        assert freed == [False] * (len(mine) - 1) + [True] * bool(mine)
    assert len(table) == 0


def test_a_holder_has_a_group_while_it_holds_any_of_it() -> None:
    leases = LeaseTable(10)
    for ident, group in ((1, "s"), (2, "s"), (3, "t"), (4, None)):
        leases.add(ident, group)
    assert not leases.has_any("s", "a")
    leases.grant(1, "a")
    leases.grant(1, "a")
    leases.grant(2, "a")
    leases.grant(3, "b")
    assert leases.has_any("s", "a")
    assert not leases.has_any("t", "a")
    leases.release(1, "a", 2, 0)
    assert leases.has_any("s", "a")
    leases.forget(1)
    leases.copy_holder("a", "c")
    assert leases.release(2, "a", 1, 0) is False
    assert not leases.has_any("s", "a")
    assert leases.has_any("s", "c")
    assert leases.drop_holder("c", 0) == [2]
    assert not leases.has_any("s", "c")
    leases.forget(3)
    assert not leases.has_any("t", "b")


def test_a_release_that_overtakes_its_grant_leaves_no_group() -> None:
    leases = LeaseTable(10)
    leases.add(1, "s")
    leases.grant(1, "other")
    leases.release(1, "a", 1, 0)
    assert not leases.has_any("s", "a")
    leases.grant(1, "a")
    assert not leases.has_any("s", "a")
    leases.grant(1, "a")
    assert leases.has_any("s", "a")
