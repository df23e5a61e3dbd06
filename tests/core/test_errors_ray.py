"""Hold every field of every error equal after a Ray task, an actor, a Serve handle and a Data job."""

import pytest

from trunnion import errors
from trunnion.errors import FIELDS, TrunnionError

pytestmark = pytest.mark.ray

CLASSES = {
    name: value for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, TrunnionError)
}


def make(name):
    """Build an error whose every field differs from its default."""
    return getattr(errors, name)(
        f"what {name} means",
        param="sampling.temperature",
        retry_after=2.5,
        details={"nested": {"list": [1, "two", None]}},
        code=f"own_{name}",
        http_status=418,
        retryable=True,
    )


def throw(name):
    raise make(name) from KeyError("raw")


def fields(error):
    return {name: getattr(error, name) for name in FIELDS}


def check_all(caught, *, dual=True):
    """Compare what arrived: the cause is ours field by field, and so is Ray's dual exception."""
    assert set(caught) == set(CLASSES)
    for name, error in caught.items():
        sent = make(name)
        assert isinstance(error, CLASSES[name]) or not dual, (name, error)
        ours = unwrap(error)
        assert type(ours) is CLASSES[name], (name, error)
        assert fields(ours) == fields(sent)
        if dual:
            assert fields(error) == fields(sent), f"a field of {name} is shadowed on Ray's dual exception"


def unwrap(error):
    """Find ours in what Ray raised, as adapters do."""
    seen = error
    while seen is not None and type(seen) not in CLASSES.values():
        seen = getattr(seen, "cause", None) or seen.__cause__
    return seen


def collect(call):
    caught = {}
    for name in CLASSES:
        try:
            call(name)
        except Exception as error:
            caught[name] = error
    return caught


def test_through_a_task(ray_session):
    ray = ray_session
    task = ray.remote(num_cpus=0)(throw)
    references = {name: task.remote(name) for name in CLASSES}
    check_all(collect(lambda name: ray.get(references[name])))


def test_returned_as_a_value(ray_session):
    ray = ray_session
    returned = ray.get(ray.remote(num_cpus=0)(lambda: {name: make(name) for name in CLASSES}).remote())
    assert {name: (type(e), fields(e)) for name, e in returned.items()} == {
        name: (cls, fields(make(name))) for name, cls in CLASSES.items()
    }


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_through_an_actor(ray_session, kind):
    ray = ray_session

    class Sync:
        def throw(self, name):
            throw(name)

    class Async:
        async def throw(self, name):
            throw(name)

    actor = ray.remote(num_cpus=0)(Sync if kind == "sync" else Async).remote()
    references = {name: actor.throw.remote(name) for name in CLASSES}
    check_all(collect(lambda name: ray.get(references[name])))
    ray.kill(actor)


def test_through_a_generator(ray_session):
    ray = ray_session

    def stream(name):
        yield 1
        throw(name)

    task = ray.remote(num_cpus=0, num_returns="streaming")(stream)

    def call(name):
        for reference in task.remote(name):
            ray.get(reference)

    check_all(collect(call))


def test_through_a_serve_handle(serve_session):
    from ray import serve

    @serve.deployment(ray_actor_options={"num_cpus": 0})
    class Thrower:
        async def __call__(self, name):
            throw(name)

        async def stream(self, name):
            yield 1
            throw(name)

    handle = serve.run(Thrower.bind(), name="errors", route_prefix="/errors")
    try:
        check_all(collect(lambda name: handle.remote(name).result()))
        streaming = handle.options(method_name="stream", stream=True)
        check_all(collect(lambda name: list(streaming.remote(name))))
    finally:
        serve.delete("errors")


def test_through_a_data_job(ray_session, monkeypatch):
    """Ray Data's own wrapper loses the cause on the way, so the original has to be raised."""
    import ray.data

    context = ray.data.DataContext.get_current()
    monkeypatch.setattr(context, "enable_progress_bars", False)
    monkeypatch.setattr(context, "raise_original_map_exception", True)

    def call(name):
        ray.data.range(1).map(lambda _: throw(name), num_cpus=0.5).materialize()

    check_all(collect(call))


def test_every_class_as_a_column_of_a_data_job(ray_session):
    import ray.data

    def row(item):
        return {"error": make(item["item"]).to_dict()}

    rows = ray.data.from_items(sorted(CLASSES)).map(row, num_cpus=0.5).take_all()
    back = {row["error"]["type"]: TrunnionError.from_dict(row["error"]) for row in rows}
    assert set(back) == set(CLASSES)
    for name, error in back.items():
        assert type(error) is CLASSES[name]
        assert error.message == make(name).message
