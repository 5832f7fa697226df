"""The catalogue of a cluster: commits, names, leases, and which chunks are kept. No cluster, no clock."""

import pytest

from arrayhost import ReferentExistsError, ReferentNotFoundError, StaleProxyError
from arrayhost.engines.dask.catalogue import Catalogue


class Chunks:
    """What is kept in the cluster's memory, by array."""

    def __init__(self) -> None:
        self.held: dict[str, set[str]] = {}

    def hold(self, ident: str, keys: list[str]) -> None:
        self.held.setdefault(ident, set()).update(keys)

    def release(self, ident: str, keys: list[str]) -> None:
        assert self.held[ident] >= set(keys)
        self.held[ident] -= set(keys)


@pytest.fixture
def chunks() -> Chunks:
    return Chunks()


@pytest.fixture
def catalogue(chunks: Chunks) -> Catalogue:
    made = Catalogue("epoch", chunks.hold, chunks.release)
    made.add("a", "<f8", ((2, 2), (3,)), ["k0", "k1"], "client")
    return made


def test_a_commit_replaces_the_chunks_that_changed(catalogue, chunks):
    assert catalogue.conflict("a", 1, "t1", None, 0.0) is None
    entry = catalogue.commit("a", "t1", {1: "k1b"}, "client")
    assert (entry.version, entry.keys, entry.shape) == (2, ["k0", "k1b"], (4, 3))
    assert chunks.held["a"] == {"k0", "k1b"}


def test_only_the_newest_version_may_be_built_on(catalogue):
    catalogue.commit("a", "t1", {0: "x"}, "client")
    assert catalogue.conflict("a", 1, "t2", None, 0.0) == "version"
    assert catalogue.conflict("a", 3, "t2", None, 0.0) == "version"
    assert catalogue.conflict("a", 2, "t2", None, 0.0) is None


def test_a_commit_whose_answer_was_lost_is_not_made_again(catalogue):
    catalogue.commit("a", "t1", {0: "x"}, "client")
    assert catalogue.conflict("a", 1, "t1", None, 0.0) is None
    assert catalogue.commit("a", "t1", {0: "x"}, "client").version == 2


def test_a_section_keeps_others_out_until_its_lease_ends(catalogue):
    lock = catalogue.entry("a").lock
    assert lock.take("mine", "client", 0.0, 10.0)
    assert catalogue.conflict("a", 1, "t", None, 5.0) == "busy"
    assert catalogue.conflict("a", 1, "t", "mine", 5.0) is None
    assert lock.renew("mine", 9.0, 10.0)
    assert catalogue.conflict("a", 1, "t", None, 15.0) == "busy"
    assert catalogue.conflict("a", 1, "t", None, 19.0) is None
    assert not lock.renew("mine", 20.0, 10.0)
    assert catalogue.conflict("a", 1, "t", "mine", 20.0) == "lock"


def test_the_lock_goes_to_who_came_first(catalogue):
    lock = catalogue.entry("a").lock
    assert lock.take("one", "c1", 0.0, 10.0)
    lock.waiting.extend(["two", "three"])
    lock.release("one")
    assert not lock.take("three", "c3", 1.0, 10.0)
    assert lock.take("two", "c2", 1.0, 10.0)
    lock.release("two")
    assert lock.take("three", "c3", 2.0, 10.0)


def test_what_a_client_had_goes_with_it(catalogue, chunks):
    catalogue.entry("a").lock.take("mine", "client", 0.0, 10.0)
    catalogue.attach("a", "other")
    catalogue.client_gone("client", 1.0)
    assert catalogue.entry("a").lock.owner is None
    catalogue.client_gone("other", 2.0)
    assert chunks.held["a"] == set()
    with pytest.raises(StaleProxyError):
        catalogue.entry("a")


def test_a_pickled_proxy_keeps_the_array_for_a_while(catalogue):
    catalogue.export("a", 60.0)
    catalogue.client_gone("client", 1.0)
    catalogue.tick(59.0)
    catalogue.attach("a", "receiver")
    catalogue.tick(61.0)
    catalogue.detach("a", "receiver", 62.0)
    with pytest.raises(StaleProxyError):
        catalogue.entry("a")


def test_names(catalogue, chunks):
    catalogue.name("x", "a", None, overwrite=False, now=0.0)
    with pytest.raises(ReferentExistsError):
        catalogue.name("x", "a", None, overwrite=False, now=0.0)
    catalogue.client_gone("client", 1.0)
    assert catalogue.find("x").ident == "a"
    catalogue.add("b", "<f8", ((1,),), ["kb"], "client")
    catalogue.commit("a", "t", {0: "y"}, "client")
    catalogue.name("x", "b", None, overwrite=True, now=2.0)
    assert "a" not in catalogue.arrays
    assert chunks.held["a"] == set()
    # What was stored under the name was version 2: what is stored now is newer.
    assert catalogue.entry("b").version == 3
    catalogue.forget("x", 3.0)
    with pytest.raises(ReferentNotFoundError, match="none"):
        catalogue.find("x")


def test_what_is_stored(catalogue, chunks):
    entry = catalogue.entry("a")
    assert entry.dirty == {0, 1}
    catalogue.saved("a", 1, {0: "k0", 1: "k1"}, {})
    assert (entry.dirty, entry.saved) == (set(), 1)
    catalogue.commit("a", "t1", {0: "k0b"}, "client")
    catalogue.commit("a", "t2", {1: "k1b"}, "client")
    # Version 2 was stored while version 3 was made: block 1 has changed since.
    catalogue.saved("a", 2, {0: "k0b", 1: "k1"}, {0: "stored0", 1: "stored1"})
    assert (entry.dirty, entry.saved, entry.keys) == ({1}, 2, ["stored0", "k1b"])
    assert chunks.held["a"] == {"stored0", "k1b"}
    assert entry.depth == 1


def test_other_chunks(catalogue, chunks):
    entry = catalogue.commit("a", "t1", {0: "w"}, "client", chunks=((4,), (3,)))
    assert (entry.keys, entry.shape, entry.dirty, entry.saved) == (["w"], (4, 3), {0}, 0)
    assert chunks.held["a"] == {"w"}
