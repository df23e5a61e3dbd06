"""The router inside Serve's interface, without a running Serve."""

from types import SimpleNamespace

from trunnion_ray.serve.routing import TrunnionRequestRouter


def replica(name):
    return SimpleNamespace(replica_id=SimpleNamespace(unique_id=name), routing_stats=None)


def pending(number):
    return SimpleNamespace(args=(), metadata=SimpleNamespace(internal_request_id=number))


async def test_requests_of_the_same_moment_do_not_all_find_the_same_replica_idle():
    router = object.__new__(TrunnionRequestRouter)
    router.initialize_state(router="least_loaded", config={})
    replicas = [replica("a"), replica("b")]

    async def first_choice(number):
        return (await router.choose_replicas(replicas, pending(number)))[0][0].replica_id.unique_id

    chosen = [await first_choice(number) for number in ("1", "2")]  # Serve has not said yet that either was sent
    assert sorted(chosen) == ["a", "b"]
    assert await first_choice("1") == chosen[0]  # asked again, it does not count itself
    for number, name in zip(("1", "2"), chosen, strict=True):
        router.on_request_routed(pending(number), SimpleNamespace(unique_id=name), None)
    assert router._in_flight == {"a": 1, "b": 1}
    assert not router._underway
    router.on_request_completed(SimpleNamespace(unique_id=chosen[0]), "1")
    assert await first_choice("3") == chosen[0]
