"""The pure core: steps, budget, blocks, prefix cache, adapters, ranks. No clock but the one the tests hold."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sim_lab import job, play

from trunnion.errors import InvalidArgument, Overloaded
from trunnion_sim import SimConfig
from trunnion_sim.core import SimCore
from trunnion_sim.kv_blocks import block_hashes
from trunnion_sim.step_time import StepTime

STEP = {"base": 1.0}


def times(events, kind="finished"):
    return [event.time for event in events if event.kind == kind]


def test_a_step_costs_what_its_parts_cost():
    config = {"step": {"base": 1.0, "per_sequence": 0.1, "per_context_token": 0.01, "per_prompt_token": 0.001}}
    one = job(prompt=10, output=3)
    play(config, [(0.0, one)])
    prefill = 1 + 10 * 0.01 + 10 * 0.001
    assert one.first_token == pytest.approx(prefill)
    assert one.ended == pytest.approx(prefill + (1 + 0.1 + 11 * 0.01) + (1 + 0.1 + 12 * 0.01))


def test_the_fields_of_a_step_are_its_terms():
    assert StepTime(base=1, per_sequence=2, per_context_token=3, per_prompt_token=4).seconds(10, 100, 1000) == 4321
    assert StepTime().free


def test_many_steps_in_one_leap_cost_what_they_cost_one_by_one():
    step = StepTime(base=0.5, per_sequence=0.25, per_context_token=0.125)
    assert step.run(5, 3, 40) == sum(step.seconds(3, 40 + 3 * i) for i in range(5))
    assert [step.steps_within(step.run(n, 3, 40), 9, 3, 40) for n in range(1, 10)] == list(range(1, 10))


def test_prompts_are_computed_in_chunks_within_the_budget_shared_with_decodes():
    decoding, long = job(prompt=1, output=9), job(prompt=20, output=1)
    play({"step": STEP, "max_num_batched_tokens": 6}, [(0.0, decoding), (0.5, long)])
    assert decoding.first_token == 1.0
    assert long.first_token == 1.0 + 4  # five of each six tokens are left to the prompt
    whole = job(prompt=20, output=1)
    play({"step": STEP, "max_num_batched_tokens": 6, "enable_chunked_prefill": False}, [(0.0, whole)])
    assert whole.first_token == 1.0


def test_a_prompt_is_not_cut_where_chunks_are_off():
    decoding, long = job(prompt=1, output=3), job(prompt=20, output=1)
    config = {"step": STEP, "max_num_batched_tokens": 6, "enable_chunked_prefill": False}
    play(config, [(0.0, decoding), (0.5, long)])
    assert (decoding.ended, long.first_token) == (3.0, 4.0)  # it waits until the step is its own


def test_sequences_bound_the_batch():
    jobs = [job(output=2) for _ in range(5)]
    play({"step": STEP, "max_num_seqs": 2}, [(0.0, one) for one in jobs])
    assert [one.ended for one in jobs] == [2.0, 2.0, 4.0, 4.0, 6.0]


def test_the_job_that_came_last_is_preempted_and_computed_again():
    config = {"step": STEP, "block_size": 4, "num_gpu_blocks_override": 4, "enable_prefix_caching": False}
    first, last = job(prompt=4, output=8), job(prompt=4, output=8)
    core, events = play(config, [(0.0, first), (0.0, last)])
    assert (first.preemptions, last.preemptions) == (0, 1)
    assert first.ended < last.ended
    assert [event.job for event in events if event.kind == "finished"] == [first, last]
    assert core.ranks[0].pool.used == 0


def test_under_priority_the_least_urgent_is_preempted():
    config = {"step": STEP, "block_size": 4, "num_gpu_blocks_override": 4, "enable_prefix_caching": False}
    late, urgent = job(prompt=4, output=8, priority=5), job(prompt=4, output=8)
    play(config, [(0.0, late), (0.0, urgent)])
    assert (late.preemptions, urgent.preemptions) == (1, 0)
    late, urgent = job(prompt=4, output=8, priority=5), job(prompt=4, output=8)
    play({**config, "scheduling_policy": "fcfs"}, [(0.0, late), (0.0, urgent)])
    assert (late.preemptions, urgent.preemptions) == (0, 1)


def test_more_blocks_than_there_are_is_refused():
    core = SimCore(SimConfig(block_size=4, num_gpu_blocks_override=4))
    core.add(job(prompt=8, output=8), 0.0)
    with pytest.raises(InvalidArgument, match="num_gpu_blocks_override"):
        core.add(job(prompt=9, output=8), 0.0)


def test_blocks_are_reserved_where_each_request_has_its_own_pace():
    config = {"tpot": 1.0, "block_size": 4, "num_gpu_blocks_override": 4}
    jobs = [job(prompt=4, output=8) for _ in range(2)]
    play(config, [(0.0, one) for one in jobs])
    assert [one.ended for one in jobs] == [7.0, 14.0]


# --- the prefix cache


def prompt(tokens, **fields):
    return job(prompt=len(tokens), output=1, hashes=block_hashes(tokens, 4), token_ids=tokens, **fields)


@pytest.mark.parametrize("time_setting", [{}, {"step": STEP}])
def test_the_start_of_a_prompt_is_cached(time_setting):
    config = {**time_setting, "block_size": 4}
    first, same, longer = prompt(range(12)), prompt(range(12)), prompt(range(15))
    other = prompt(range(1, 13))
    play(config, [(0.0, first), (10.0, same), (20.0, longer), (30.0, other)])
    assert [one.cached for one in (first, same, longer, other)] == [0, 8, 12, 0]  # the last token is always computed
    again = prompt(range(12))
    play({**config, "enable_prefix_caching": False}, [(0.0, prompt(range(12))), (10.0, again)])
    assert again.cached == 0


def test_cached_tokens_take_no_time():
    config = {"step": {"per_prompt_token": 1.0}, "block_size": 4}
    first, same = prompt(range(12)), prompt(range(12))
    play(config, [(0.0, first), (20.0, same)])
    assert (first.first_token, same.first_token) == (12.0, 24.0)


def test_the_least_recently_used_blocks_are_evicted():
    config = {"block_size": 4, "num_gpu_blocks_override": 5}
    one, two = range(8), range(100, 108)
    arrivals = [(0.0, prompt(one)), (1.0, prompt(two)), (2.0, prompt(one)), (3.0, prompt(range(200, 208)))]
    last = [prompt(one), prompt(two)]
    play(config, [*arrivals, (4.0, last[0]), (5.0, last[1])])
    assert [it.cached for it in last] == [4, 0]


def test_kv_events_tell_what_is_cached():
    told = []
    core = SimCore(SimConfig(block_size=4, num_gpu_blocks_override=3), kv_log=lambda rank, event: told.append(event))
    core.add(prompt(range(9), adapter=None), 0.0)
    core.step(0.0)
    core.add(prompt(range(100, 108)), 1.0)
    core.step(1.0)
    assert core.reset_prefix_cache()
    hashes = block_hashes(range(9), 4)
    assert told[0] == {
        "type": "stored",
        "block_hashes": tuple(hashes),
        "parent_block_hash": None,
        "token_ids": tuple(range(8)),
        "block_size": 4,
        "adapter": None,
    }
    assert told[1] == {"type": "removed", "block_hashes": (hashes[1], hashes[0])}
    assert [event["type"] for event in told[2:]] == ["stored", "cleared"]


def test_block_hashes_are_chained_and_kept_apart():
    plain = block_hashes(range(12), 4)
    assert block_hashes(range(8), 4) == plain[:2]
    assert block_hashes([*range(4), 9, 9, 9, 9, *range(8, 12)], 4)[2] != plain[2]
    apart = [plain, block_hashes(range(12), 4, adapter="a"), block_hashes(range(12), 4, salt="a")]
    assert len({hashes[0] for hashes in apart}) == 3


# --- adapters


def test_an_adapter_is_loaded_and_the_least_recently_used_one_leaves():
    config = {"step": STEP, "lora_load_seconds": 10.0, "max_loras": 1, "adapters": ("a", "b")}
    first, second, plain = job(adapter="a", output=1), job(adapter="b", output=1), job(output=1)
    core, _ = play(config, [(0.0, first), (2.0, second), (3.0, plain)])
    assert first.ended == 1.0  # the first to fit are there from the start
    assert second.ended == 13.0
    assert plain.ended == 4.0  # who needs no adapter does not wait for it
    assert core.adapters == ("b",)
    both = [job(adapter=name, output=1) for name in "ab"]
    play({**config, "max_loras": None}, [(0.0, one) for one in both])
    assert [one.ended for one in both] == [1.0, 1.0]


def test_an_adapter_in_use_stays():
    config = {"ttft": 5.0, "max_loras": 1, "adapters": ("a", "b"), "lora_load_seconds": 1.0}
    using, waiting = job(adapter="a", output=1), job(adapter="b", output=1)
    play(config, [(0.0, using), (1.0, waiting)])
    assert (using.ended, waiting.admitted) == (5.0, 6.0)


# --- shapes


def test_tensor_parallel_divides_the_step():
    one = job(output=1)
    play({"step": STEP, "tensor_parallel_size": 3, "tensor_parallel_efficiency": 0.5}, [(0.0, one)])
    assert one.ended == 0.5


def test_data_parallel_ranks_are_schedulers_of_their_own():
    jobs = [job(output=1) for _ in range(4)]
    play({"step": STEP, "max_num_seqs": 1, "data_parallel_size": 2}, [(0.0, one) for one in jobs])
    assert [one.ended for one in jobs] == [1.0, 1.0, 2.0, 2.0]
    assert {one.rank for one in jobs} == {0, 1}


def test_choices_share_the_prompt_and_decode_side_by_side():
    one = job(prompt=8, output=4, lengths=(4, 2))
    play({"step": {"per_sequence": 1.0}}, [(0.0, one)])
    assert one.ended == 2 + 1 + 1
    assert one.blocks_at(12, 4) == 2 + 1 + 1


def test_max_waiting_counts_those_beyond_the_free_slots():
    core = SimCore(SimConfig(step=STEP, max_num_seqs=2, max_waiting=1))
    for _ in range(3):
        core.add(job(), 0.0)
    with pytest.raises(Overloaded):
        core.add(job(), 0.0)


def test_a_slow_node_and_a_crash_come_by_time():
    faults = [{"kind": "slow_node", "at": 2.0, "until": 4.0, "factor": 3.0}, {"kind": "crash_node", "at": 20.0}]
    jobs = [job(output=1) for _ in range(3)]
    last = job(output=9)
    _, events = play({"step": STEP, "faults": faults}, [*zip([0.0, 2.0, 6.0], jobs, strict=True), (19.5, last)])
    assert [one.ended for one in jobs] == [1.0, 5.0, 7.0]
    assert last.ended is None
    assert times(events, "crashed") == [20.0]


@pytest.mark.parametrize("time_setting", [{"ttft": 1.0, "tpot": 1.0}, {"step": STEP}])
def test_a_slow_request_slows_nobody_else(time_setting):
    slow, other = job(output=4, slow=3.0), job(output=4)
    play(time_setting, [(0.0, slow), (0.0, other)])
    assert other.ended == 4.0
    assert slow.ended >= 3 * 3


def test_a_halted_job_keeps_its_place():
    halted, waiting = job(output=9, halt_at=2), job()
    core, events = play({"step": STEP, "max_num_seqs": 1}, [(0.0, halted), (0.0, waiting)])
    assert (halted.progress, core.running, core.waiting) == (2, 1, 1)
    assert times(events, "halted") == [2.0]


# --- leaps


def test_a_new_arrival_cuts_a_leap_short():
    long, new = job(prompt=4, output=1000, chunk=1000), job(prompt=4, output=1)
    core, _ = play({"step": STEP}, [(0.0, long), (99.5, new)])
    assert (new.admitted, new.ended) == (100.0, 101.0)
    assert long.ended == 1000.0
    assert core.ranks[0].steps < 10


ARRIVALS = st.lists(
    st.tuples(
        st.floats(0, 50), st.integers(1, 40), st.integers(1, 40), st.integers(-2, 2), st.integers(0, 3),
        st.sampled_from([None, "a", "b"]), st.sampled_from([1, 3, 1000]),
    ),
    min_size=1,
    max_size=25,
)  # fmt: skip
CONFIGS = st.fixed_dictionaries(
    {
        "max_num_seqs": st.integers(1, 8),
        "max_num_batched_tokens": st.integers(8, 64),
        "block_size": st.sampled_from([4, 16]),
        "num_gpu_blocks_override": st.integers(20, 60),
        "scheduling_policy": st.sampled_from(["priority", "fcfs"]),
        "enable_chunked_prefill": st.booleans(),
        "max_loras": st.sampled_from([1, 2]),
        "lora_load_seconds": st.sampled_from([0.0, 1.5]),
        "data_parallel_size": st.integers(1, 2),
    }
)
TIMES = st.sampled_from(
    [{}, {"ttft": 1.0, "tpot": 0.5}, {"step": {"base": 0.5, "per_sequence": 0.01, "per_context_token": 0.001}}]
)


def made(arrivals, config, *, chunk=None):
    size = config["block_size"]
    jobs = []
    for at, length, output, priority, group, adapter, own_chunk in arrivals:
        tokens = [group] * length
        hashes = block_hashes(tokens, size, adapter=adapter)
        fields = {"priority": priority, "adapter": adapter, "hashes": hashes, "chunk": chunk or own_chunk}
        jobs.append((at, job(prompt=length, output=output, **fields)))
    return jobs


@settings(max_examples=150, deadline=None)
@given(arrivals=ARRIVALS, config=CONFIGS, time_setting=TIMES)
def test_whatever_comes_tokens_and_blocks_are_conserved(arrivals, config, time_setting):
    config = {**config, **time_setting, "adapters": ("a", "b")}
    jobs = made(arrivals, config)
    core = SimCore(SimConfig(**config))
    events = []
    waiting = sorted(jobs, key=lambda arrival: arrival[0])
    while waiting or core.due is not None:
        due = core.due
        if waiting and (due is None or waiting[0][0] <= due):
            core.add(waiting[0][1], waiting.pop(0)[0])
        else:
            events.extend(core.step(due))
        for rank in core.ranks:
            pool = rank.pool
            assert 0 <= pool.used <= pool.capacity
            assert pool.used + pool.cached <= pool.capacity
            assert len(rank.running) <= config["max_num_seqs"]
            assert all(one.private >= 0 for one in rank.running)
    finished = [event.job for event in events if event.kind == "finished"]
    assert len(finished) == len(set(finished)) == len(jobs)
    for _, one in jobs:
        assert one.progress == one.output
        assert one.cached <= one.prompt - 1
        assert one.arrived <= one.admitted <= one.first_token <= one.ended
    assert (core.running, core.waiting) == (0, 0)
    assert all(rank.pool.used == 0 for rank in core.ranks)
    assert core.reset_prefix_cache()


@settings(max_examples=60, deadline=None)
@given(arrivals=ARRIVALS, config=CONFIGS)
def test_leaps_change_no_time(arrivals, config):
    """One event at the end of each request, or one per token: the clock says the same."""
    config = {**config, "num_gpu_blocks_override": 400, "adapters": ("a", "b")}
    config["step"] = {"base": 0.5, "per_sequence": 0.25, "per_context_token": 2**-10}
    one_by_one, leaping = made(arrivals, config, chunk=1), made(arrivals, config, chunk=1000)
    core, _ = play(config, one_by_one)
    quick, _ = play(config, leaping)
    assert [one.ended for _, one in leaping] == pytest.approx([one.ended for _, one in one_by_one])
    assert [one.first_token for _, one in leaping] == pytest.approx([one.first_token for _, one in one_by_one])
    assert sum(rank.steps for rank in quick.ranks) <= sum(rank.steps for rank in core.ranks)


@settings(max_examples=60, deadline=None)
@given(arrivals=ARRIVALS, config=CONFIGS, time_setting=TIMES)
def test_the_same_calls_give_the_same_trace(arrivals, config, time_setting):
    def trace():
        jobs = made(arrivals, config)
        numbers = {one: number for number, (_, one) in enumerate(jobs)}
        _, events = play({**config, **time_setting, "adapters": ("a", "b")}, jobs)
        return [(event.kind, numbers[event.job], event.time) for event in events]

    assert trace() == trace()


@settings(max_examples=60, deadline=None)
@given(priorities=st.lists(st.integers(-3, 3), min_size=1, max_size=30), time_setting=TIMES)
def test_the_urgent_come_first_then_those_who_came_first(priorities, time_setting):
    jobs = [job(priority=priority) for priority in priorities]
    core = SimCore(SimConfig(max_num_seqs=1, **time_setting))
    for one in jobs:
        core.ranks[0].waiting.clear()
        one.key = (one.priority, jobs.index(one))
    first = job(output=1)
    _, events = play({"max_num_seqs": 1, **time_setting}, [(0.0, first), *((0.0, one) for one in jobs)])
    order = [event.job for event in events if event.kind == "finished" and event.job is not first]
    waited = [one for one in order if one.admitted > 0] or order
    assert waited == sorted(waited, key=lambda one: one.key)


def test_a_core_holds_thousands_of_requests_without_slowing_down():
    """Steps stay cheap: a leap counts as one, whatever its length."""
    jobs = [(0.01 * number, job(prompt=100, output=500, chunk=500)) for number in range(2000)]
    began = time.process_time()
    core, events = play({"step": {"base": 0.01, "per_sequence": 1e-4}, "max_num_seqs": 64}, jobs)
    assert len(times(events)) == 2000
    assert core.ranks[0].steps < 20_000  # a million tokens
    assert time.process_time() - began < 60
