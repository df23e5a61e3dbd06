"""The figures of several processes in one exposition."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from trunnion_http.gathered import gather


def exposition(value):
    registry = CollectorRegistry()
    Counter("asked", "How often.", ["model"], registry=registry).labels('a "b" }\n').inc(value)
    Gauge("open", "Now.", registry=registry).set(value)
    Histogram("took", "Seconds.", registry=registry, buckets=(1, 2)).observe(value)
    return generate_latest(registry).decode()


def samples(text):
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families)
    return {(s.name, *sorted(s.labels.items())): s.value for family in families for s in family.samples}


def test_samples_are_told_apart_by_their_replica():
    found = samples(gather(exposition(1), [("x", exposition(2)), ("y", exposition(3))]))
    model = ("model", 'a "b" }\n')
    assert found["asked_total", model] == 1
    assert found["asked_total", model, ("replica", "x")] == 2
    assert found["open", ("replica", "y")] == 3
    assert found["took_bucket", ("le", "2.0"), ("replica", "x")] == 1
    assert len(found) == 3 * len(samples(exposition(1)))


def test_one_process_is_told_as_it_is():
    text = exposition(1)
    assert gather(text, []) == text
    assert samples(gather("", [("x", exposition(1))]))["open", ("replica", "x")] == 1
