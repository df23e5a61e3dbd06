"""The sampler alone, on made-up logits."""

from collections import Counter
from types import SimpleNamespace

import pytest

from trunnion_transformers.plan import Plan

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def torch():
    import torch

    return torch


@pytest.fixture
def sampler(torch):
    from trunnion_transformers.sampler import Sampler

    return Sampler(7, torch.device("cpu"))


def step(sampler, scores, *plans, prompt=(), output=()):
    """Return the token of each row, as the library finds it."""
    batch = [
        SimpleNamespace(
            has_new_token=True,
            state=SimpleNamespace(
                logit_processor_kwargs={"plan": plan}, initial_tokens=list(prompt), generated_tokens=list(output)
            ),
        )
        for plan in plans
    ]
    for entry in batch:
        entry.state.logit_processor_kwargs["plan"].prompt_tokens = len(prompt)
    sampler.prepare_tensor_args(batch, None)
    scores = scores.clone()
    if sampler.do_processing:
        scores = sampler(None, scores, None)
    return scores.argmax(-1).tolist()


def test_plain_rows_are_not_looked_at(sampler, torch):
    assert step(sampler, torch.tensor([[0.0, 2.0, 1.0]]), Plan()) == [1]
    assert not sampler.do_processing


def test_draws_follow_the_temperature(sampler, torch):
    logits = torch.tensor([[0.0, 1.0, 2.0]])
    rows = logits.repeat(4000, 1)
    for temperature in (0.5, 1.0, 2.0):
        seen = Counter(step(sampler, rows, *(Plan(temperature=temperature) for _ in range(4000))))
        wanted = torch.softmax(logits[0] / temperature, -1)
        assert [seen[token] / 4000 for token in range(3)] == pytest.approx(wanted.tolist(), abs=0.04)


@pytest.mark.parametrize(
    ("values", "allowed"),
    [
        ({"top_k": 2}, {3, 4}),
        ({"top_p": 0.6}, {4}),
        ({"top_p": 0.7}, {3, 4}),
        ({"min_p": 0.3}, {3, 4}),
        ({"top_k": 3, "top_p": 0.95}, {2, 3, 4}),
        ({"top_k": 99}, {0, 1, 2, 3, 4}),
    ],
)
def test_what_may_be_drawn(sampler, torch, values, allowed):
    rows = torch.arange(5.0).repeat(600, 1)  # probabilities 0.012, 0.032, 0.086, 0.234, 0.636
    plans = [Plan(temperature=1.0, **values) for _ in range(600)]
    plans[0] = Plan(temperature=1.0)  # a row that is not narrowed changes nothing for the others
    assert set(step(sampler, rows, *plans)[1:]) == allowed


def test_it_narrows_as_the_library_does(torch):
    from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    from trunnion_transformers.sampler import narrow

    torch.manual_seed(3)
    logits = torch.randn(6, 50) * 3
    plans = [
        Plan(temperature=1.0, top_k=k, top_p=p, min_p=m)
        for k, p, m in [(0, 1.0, 0.0), (5, 1.0, 0.0), (0, 0.8, 0.0), (0, 1.0, 0.1), (9, 0.9, 0.05), (1, 0.1, 0.9)]
    ]
    probabilities, ids = narrow(logits, plans)
    ours = torch.zeros_like(logits).scatter(1, ids, probabilities)
    ours /= ours.sum(-1, keepdim=True)
    for row, plan in enumerate(plans):
        scores = TemperatureLogitsWarper(1.0)(None, logits[row : row + 1])
        if plan.top_k:
            scores = TopKLogitsWarper(plan.top_k)(None, scores)
        if plan.top_p < 1:
            scores = TopPLogitsWarper(plan.top_p)(None, scores)
        if plan.min_p:
            scores = MinPLogitsWarper(plan.min_p)(None, scores)
        assert ours[row].tolist() == pytest.approx(torch.softmax(scores[0], -1).tolist(), abs=1e-5)


def test_penalties_count_what_was_said(sampler, torch):
    logits = torch.tensor([[3.0, 2.9, -1.0]])
    assert step(sampler, logits, Plan(presence_penalty=0.2), output=(0,)) == [1]
    assert step(sampler, logits, Plan(presence_penalty=0.2), prompt=(0,)) == [0]
    assert step(sampler, logits, Plan(frequency_penalty=0.06), output=(0,)) == [0]
    assert step(sampler, logits, Plan(frequency_penalty=0.06), output=(0, 0)) == [1]
    assert step(sampler, logits, Plan(repetition_penalty=1.2), prompt=(0,)) == [1]
    assert step(sampler, torch.tensor([[-3.0, -3.1]]), Plan(repetition_penalty=1.2), prompt=(0,)) == [1]


def test_no_end_before_min_tokens(sampler, torch):
    logits = torch.tensor([[3.0, 2.0]])
    assert step(sampler, logits, Plan(min_tokens=2, ends=(0, 99)), output=(1,)) == [1]
    assert step(sampler, logits, Plan(min_tokens=2, ends=(0, 99)), output=(1, 1)) == [0]


def test_bias_beyond_the_vocabulary_is_harmless(sampler, torch):
    assert step(sampler, torch.tensor([[3.0, 2.0]]), Plan(logit_bias={1: 5.0, 99: 5.0, -1: 5.0})) == [1]


def test_logprobs_are_the_model_s_own(sampler, torch):
    plan = Plan(logprobs=2, logit_bias={0: 100.0})
    logits = torch.tensor([[0.0, 1.0, 2.0]])
    assert step(sampler, logits, plan) == [0]
    ((logprob, ids, values),) = plan.records
    wanted = torch.log_softmax(logits[0], -1).tolist()
    assert logprob == pytest.approx(wanted[0])
    assert (ids, values) == ([2, 1], pytest.approx([wanted[2], wanted[1]]))
