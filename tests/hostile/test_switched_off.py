"""Each test of hostile peers fails when the mechanism that it is about is switched off: none passes by itself."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import arrayhost
from arrayhost.core.layout import Layout
from arrayhost.host import requests, server
from arrayhost.host.places import Places
from arrayhost.host.reception import Reception
from arrayhost.host.server import Server
from arrayhost.host.store import Store
from arrayhost.memory import budget
from arrayhost.sync.guards import Guard
from arrayhost.wire import addresses, codec, frames, streams
from tests.faults.harness import IS_LONG, report
from tests.hostile import test_fuzz, test_memory, test_read_only, test_stalls, test_trust
from tests.hostile.peers import host_with
from tests.process import test_ceiling, test_many_arrays
from tests.process import test_memory as process_memory
from tests.support import Census
from tests.unit import test_frames, test_layout

pytestmark = [
    pytest.mark.slow,
    pytest.mark.watchdog(120),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # sockets of a test that failed
    pytest.mark.census_ignore(".*", reason="what was switched off is what keeps things from being left"),
]


def nothing(*args: Any, **kwargs: Any) -> None:
    """Do nothing."""


# -- the tests that must notice; some are given here what their fixtures would give them -----------------------------


def a_bad_layout(_: Path) -> None:
    test_layout.test_a_layout_outside_its_segment_is_refused(-8, (1,), (8,))


def a_handle_of_a_neighbour(_: Path) -> None:
    test_many_arrays.test_a_handle_does_not_reach_a_neighbour()


def a_stale_proxy(_: Path) -> None:
    test_many_arrays.test_a_reader_without_a_lease_never_sees_the_successors_data()


def a_canary(folder: Path) -> None:
    test_trust.test_no_pickle_of_an_untrusted_peer_is_read_in_any_field(folder / "sang")
    assert not (folder / "sang").exists()


def names(_: Path) -> None:
    with host_with(trust_peers=False) as host:
        test_trust.test_names_lead_to_arithmetic_only(host, ["get", "__class__", "", None, ["A"], {}])


def functions(_: Path) -> None:
    with host_with(trust_peers=False) as host:
        test_trust.test_functions_are_not_run_for_the_untrusted(host)


def a_read_only_session(_: Path) -> None:
    with test_read_only.Arrays() as manager:
        manager["a"] = test_read_only.VALUES
        reader = arrayhost.connect(str(manager.address), mode="r")
        reader._engine.session.read_only = False  # type: ignore[union-attr]
        test_read_only.test_the_host_itself_refuses(manager, reader)


def links(folder: Path) -> None:
    test_trust.test_links_and_others_files_are_refused(folder)


def modes(folder: Path) -> None:
    test_trust.test_a_socket_and_its_folder_are_its_users_own(folder)


def another_user(_: Path) -> None:
    if os.geteuid():
        pytest.skip("becoming another user needs root")
    test_trust.test_another_user_is_not_let_in_and_not_talked_to()


def empty_lists(_: Path) -> None:
    with host_with(trust_peers=False) as host:
        test_memory.test_a_body_that_decodes_to_many_times_its_size(host, "empty lists")


def a_large_body(_: Path) -> None:
    with host_with(trust_peers=False) as host:
        test_memory.test_a_body_that_nobody_may_send_is_not_received(host)


def a_large_body_and_little_memory(_: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        test_memory.test_what_is_too_much_for_the_memory_that_is_free_is_refused(patch)


def an_array_and_little_memory(_: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        process_memory.test_more_than_is_free_is_refused_by_client_and_host(patch)


def tiles_and_little_memory(_: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budget, "free_bytes", lambda: budget.Free(test_ceiling.FREE, "the control group /tight"))
        with test_ceiling.Arrays() as manager:
            test_ceiling.test_more_than_is_free_is_refused_with_need_free_and_remedy(manager, "run(np.tile)")


def what_was_freed(_: Path) -> None:
    test_ceiling.test_what_was_freed_goes_back_to_the_system()


def a_bound(_: Path) -> None:
    process_memory.test_max_bytes_holds_for_whatever_makes_an_array()


def newcomers(_: Path) -> None:
    test_stalls.test_the_oldest_newcomer_makes_room()


def silence(_: Path) -> None:
    test_stalls.test_500_stalling_peers_and_an_honest_client(test_stalls.silent)


def a_slow_hello(_: Path) -> None:
    test_stalls.test_one_byte_a_second_is_not_soon_enough()


def half_a_lease_message(_: Path) -> None:
    test_stalls.test_500_stalling_peers_and_an_honest_client(test_stalls.half_lease_message)


def half_a_request(_: Path) -> None:
    test_stalls.test_500_stalling_peers_and_an_honest_client(test_stalls.half_request)


def answers_with_files(_: Path) -> None:
    test_stalls.test_answers_with_files_are_not_piled_up()


def a_bad_header(_: Path) -> None:
    test_frames.test_what_is_no_frame_is_refused_by_its_header((b"AH", 1, 1, 65, 0, 0, 0), "descriptors")


def mutated_frames(_: Path) -> None:
    test_fuzz.test_mutated_frames_are_decoded_or_refused(np.random.default_rng(5))


def a_live_host(_: Path) -> None:
    print(test_fuzz.attack_host(3000, np.random.default_rng(5), trusts=False, warm_up=100))


_new_guard = Store._new_guard


def always_the_same_generation(store: Store, generation: int) -> Guard:
    """Give every array the same generation."""
    return _new_guard(store, 1)


# What is switched off: where, its name, what stands there instead; and who must notice.
SWITCHES: dict[str, tuple[Any, str, Any, Callable[[Path], None]]] = {
    "layouts are checked": (Layout, "check", nothing, a_bad_layout),
    "layouts are checked in a host": (Layout, "check", nothing, a_handle_of_a_neighbour),
    "generations differ": (Store, "_new_guard", always_the_same_generation, a_stale_proxy),
    "headers are checked": (frames, "MAX_DESCRIPTORS", 1000, a_bad_header),
    "errors of decoding are refusals": (codec.Codec, "decode", codec.Codec.unpack, mutated_frames),
    "pickles are for the trusted": (
        codec._DECODERS, codec.PICKLE, lambda _, data: codec.pickle.loads(data), a_canary,
    ),
    "operations are listed": (requests, "check_untrusted", nothing, names),
    "functions are the trusted's": (requests, "refuse_code", nothing, functions),
    "who only reads is kept to it": (requests, "check_reads_only", nothing, a_read_only_session),
    "links are refused": (addresses, "_remove_stale", nothing, links),
    "memory files are private": (os, "fchmod", nothing, modes),
    "decoding is claimed": (requests, "decoded_bytes", lambda _: 0, a_large_body_and_little_memory),
    "free memory is looked at": (budget._Claims, "_check", nothing, an_array_and_little_memory),
    "code in the host is bounded": (Server, "bound_memory", nothing, tiles_and_little_memory),
    "max_bytes is kept": (Places, "_count", nothing, a_bound),
}  # fmt: skip
# Each of these takes ten seconds and more until the test is sure.
SLOW: dict[str, tuple[Any, str, Any, Callable[[Path], None]]] = {
    "connections that ended are closed": (Server, "_end_calls", nothing, a_live_host),
    "a peer's user is looked at": (addresses, "check_peer", lambda _: 0, another_user),
    "parts are counted": (codec.Codec, "_count", nothing, empty_lists),
    "bodies are bounded": (streams, "MAX_UNTRUSTED_BYTES", frames.MAX_BODY_BYTES, a_large_body),
    "what was freed goes back": (server, "trim_heap", nothing, what_was_freed),
    "newcomers are bounded": (Reception, "_drop", nothing, newcomers),
    "hellos have a deadline": (Reception, "keep_deadlines", nothing, silence),
    "a byte at a time does not help": (Reception, "keep_deadlines", nothing, a_slow_hello),
    "lease messages have a deadline": (Server, "_keep_lease_deadlines", nothing, half_a_lease_message),
    "requests have a deadline": (streams.UnixStream, "limit", nothing, half_a_request),
    "answers with files are read first": (streams.UnixStream, "_check_read", nothing, answers_with_files),
}
_LONG = pytest.mark.skipif(not IS_LONG, reason="part of make faults")


@pytest.mark.parametrize("name", [*SWITCHES, *(pytest.param(name, marks=_LONG) for name in SLOW)])
def test_a_test_notices(monkeypatch: pytest.MonkeyPatch, census: Census, tmp_path: Path, name: str) -> None:
    where, attribute, instead, check = {**SWITCHES, **SLOW}[name]
    if isinstance(where, dict):
        monkeypatch.setitem(where, attribute, instead)
    else:
        monkeypatch.setattr(where, attribute, instead)
    try:
        with pytest.raises(
            (AssertionError, arrayhost.ArrayHostError, OSError, ValueError, LookupError, pytest.fail.Exception)
        ) as caught:
            check(tmp_path)
        report(f"  without it: {(str(caught.value) or repr(caught.value)).splitlines()[0][:150]}")
    finally:
        monkeypatch.undo()
        census.kill_new_processes()
