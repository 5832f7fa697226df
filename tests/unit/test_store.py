"""What a store keeps so that a handle that comes again need not be decoded: bounded, whatever clients send."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from arrayhost.core.layout import Layout
from arrayhost.host.store import Operand, Store
from arrayhost.wire.codec import pack_handle

HOLDER = "somebody"


@contextlib.contextmanager
def new_store() -> Iterator[Store]:  # no fixture: pytest would keep it, and its lock files, beyond the test
    store = Store(handle_grace=0.0)
    try:
        yield store
    finally:
        store.drop_holder(HOLDER)
        store.close()


def hosted(store: Store, n: int) -> Operand:
    layout = Layout.contiguous((n,), "f8")
    place = store.places.create(layout.nbytes)
    return store.add_array(place, layout, HOLDER)


def handle_of(operand: Operand, k: int) -> bytes:
    layout = replace(operand.layout, offset=8 * k, shape=(1,))
    return pack_handle(replace(operand.handle(), layout=layout))


def test_a_view_that_comes_again_is_the_same_operand() -> None:
    with new_store() as store:
        packed = handle_of(hosted(store, 10), 3)
        assert store.find_packed(packed) is store.find_packed(packed)


def test_many_views_of_one_array_are_not_all_kept_and_push_out_no_others() -> None:
    with new_store() as store:
        other, many = hosted(store, 4), hosted(store, 1000)
        first = store.find_packed(handle_of(other, 0))
        for k in range(1000):
            assert store.find_packed(handle_of(many, k)).layout.offset == 8 * k
        assert len(many.referent.views) <= 64
        assert len(store._operands) <= 65
        assert store.find_packed(handle_of(other, 0)) is first


def test_long_handles_are_not_kept() -> None:
    with new_store() as store:
        operand = hosted(store, 1000)
        dtype = np.dtype([(f"field{k}", "u1") for k in range(200)])
        layout = Layout(0, (1,), (200,), dtype)
        found = store.find_packed(pack_handle(replace(operand.handle(), layout=layout)))
        assert found.live.dtype == dtype
        assert not store._operands


def test_what_is_kept_goes_with_its_array() -> None:
    with new_store() as store:
        operand = hosted(store, 10)
        for k in range(10):
            store.find_packed(handle_of(operand, k))
        store.drop_holder(HOLDER)
        assert not store._operands
