"""The router inside Serve's interface, without a running Serve."""

import time
from types import SimpleNamespace

import pytest
from ray.serve._private.request_router.common import ReplicaQueueLengthCache
from ray.serve.request_router import ReplicaID

from trunnion_ray.serve.routing import TrunnionRequestRouter


@pytest.fixture
def router():
    made = object.__new__(TrunnionRequestRouter)
    made._use_replica_queue_len_cache, made._replica_queue_len_cache = False, ReplicaQueueLengthCache()
    made._queue_len_gauge_last_update = {}
    made.initialize_state(router="least_loaded", config={})
    return made


def replica(name):
    return SimpleNamespace(replica_id=ReplicaID(unique_id=name, deployment_id=None), routing_stats=None)


def pending(number):
    return SimpleNamespace(args=(), metadata=SimpleNamespace(internal_request_id=number))


async def first_choice(router, replicas, number):
    return (await router.choose_replicas(replicas, pending(number)))[0][0].replica_id


async def test_requests_of_the_same_moment_do_not_all_find_the_same_replica_idle(router):
    replicas = [replica("a"), replica("b")]
    chosen = [await first_choice(router, replicas, number) for number in ("1", "2")]  # neither has been sent yet
    assert {one.unique_id for one in chosen} == {"a", "b"}
    assert await first_choice(router, replicas, "1") == chosen[0]  # asked again, it does not count itself
    for one in chosen:
        router.on_send_request(one)
    assert router._in_flight == {"a": 1, "b": 1}
    assert not router._underway
    router.on_request_completed(chosen[0], "1")
    assert await first_choice(router, replicas, "3") == chosen[0]


@pytest.mark.parametrize("order", ["a stream", "a whole answer", "a whole answer, told late"])
async def test_requests_that_are_over_count_no_more(router, order):
    """Serve learns that a whole answer was accepted when it is there: before or after it tells that it is over."""
    replicas = [replica("a"), replica("b")]
    told = []
    router._router = SimpleNamespace(
        rank=router._router.rank,
        routed=lambda request, candidate: told.append(("routed", candidate.id)),
        completed=lambda request, candidate, ok: told.append(("completed", candidate.id)),
    )
    for number in map(str, range(20)):
        chosen = await first_choice(router, replicas, number)
        router.on_send_request(chosen)
        assert sum(router._in_flight.values()) == 1
        if order == "a stream":
            router.on_request_routed(pending(number), chosen, None)
            router.on_request_completed(chosen, number)
        elif order == "a whole answer":
            router.on_request_completed(chosen, number)
            router.on_request_routed(pending(number), chosen, None)
        else:
            router.on_request_completed(chosen, number)
        assert told == [("routed", chosen.unique_id), ("completed", chosen.unique_id)]
        told.clear()
    assert sum(router._in_flight.values()) == 0
    assert not router._sent
    assert not router._underway


async def test_a_request_that_went_to_the_second_choice_counts_there(router):
    replicas = [replica("a"), replica("b")]
    first = await first_choice(router, replicas, "1")
    (other,) = (one.replica_id for one in replicas if one.replica_id != first)
    router.on_send_request(other)
    router.on_request_routed(pending("1"), other, None)
    assert router._in_flight[other.unique_id] == 1
    assert router._in_flight[first.unique_id] == 0
    assert await first_choice(router, replicas, "2") == first
    router.on_request_completed(other, "1")
    assert not router._in_flight[other.unique_id]


async def test_serve_asks_no_replica_for_its_queue_that_was_idle_for_long(router):
    """It would pass over who does not answer within 0.1 s, as happens in a burst."""
    replicas = [replica("a"), replica("b")]
    router._in_flight["a"] = 1
    await router.choose_replicas(replicas, pending("2"))
    cache = router.replica_queue_len_cache
    assert [cache.get(one.replica_id) for one in replicas] == [1, 0]
    cache.update(replicas[0].replica_id, 7)  # Serve counts itself
    for _ in range(2):
        await router.choose_replicas(replicas, pending("2"))
        assert cache.get(replicas[0].replica_id) == 7
    late = time.time() + 60
    cache._get_curr_time_s = lambda: late
    await router.choose_replicas(replicas, pending("3"))
    assert [cache.get(one.replica_id) for one in replicas] == [1, 0]


async def test_a_replica_that_was_out_of_reach_is_asked_first(router):
    replicas = [replica("a"), replica("b")]
    cache, lost = router.replica_queue_len_cache, replicas[0].replica_id
    await router.choose_replicas(replicas, pending("1"))
    router.on_replica_actor_unavailable(lost)
    await router.choose_replicas(replicas, pending("2"))
    assert [cache.get(one.replica_id) for one in replicas] == [None, 0]
    cache.update(lost, 0)  # it answered
    await router.choose_replicas(replicas, pending("3"))
    cache.invalidate_key(lost)
    await router.choose_replicas(replicas, pending("4"))
    assert cache.get(lost) == 0
