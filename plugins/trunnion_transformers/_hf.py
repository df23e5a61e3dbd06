"""Import what is private of transformers' continuous batching in one place. Written for 5.19 up to 5.23.

Beyond the public names it relies on these: ``ContinuousBatchingManager`` with ``output_router``, ``logit_processor``,
``_create_batch_processor``, ``_generation_loop_body``, ``_generation_step``, ``_run_generation_loop``,
``_handle_critical_error``, ``_wake_up_loop`` and ``background_thread_status.fatal_error``; the processor's
``inputs_and_outputs.requests_in_batch``, whose entries have ``state`` and ``has_new_token``; ``Scheduler`` with
``_process_candidates``, ``_infer_request_tokens``, ``_get_waiting_candidates``, ``_cleanup_waiting_queue`` and its two
queues; ``PagedAttentionCache.search_prefix_match`` and ``mark_complete_blocks``; ``RequestState`` with
``generated_tokens``, ``initial_tokens`` and ``logit_processor_kwargs``, which carries our :class:`~.plan.Plan`; for our
attention, ``group_layers_by_attn_type``, the arguments of ``PagedAttentionArgs``, ``PagedAttentionCache`` with
``layer_to_allocator``, and its allocators with ``index``, ``layer_type``, ``read_trash_index`` and ``update``.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any

import torch
from transformers import AttentionInterface, ContinuousBatchingConfig, GenerationConfig
from transformers import LogitsProcessorList as NoProcessors
from transformers import __version__ as VERSION  # noqa: N812
from transformers.generation.continuous_batching.cache import FULL_ATTENTION, group_layers_by_attn_type
from transformers.generation.continuous_batching.cb_logits_processors import (
    ContinuousBatchingLogitsProcessorList as LogitsProcessorList,
)
from transformers.generation.continuous_batching.continuous_api import ContinuousBatchingManager, OutputRouter
from transformers.generation.continuous_batching.model_runner import infer_max_single_request_tokens
from transformers.generation.continuous_batching.requests import RequestStatus
from transformers.generation.continuous_batching.scheduler import SCHEDULER_MAPPING, FIFOScheduler

from .attention import Layout, attend, lay_out
from .plan import Plan, salted
from .turns import Turns

_SCHEDULER = "trunnion_turns"
ATTENTION = "trunnion_paged"
"""Name of our attention in the library."""


def plan_of(state: Any) -> Plan:
    """Return the plan that travels with the library's RequestState."""
    plan: Plan = state.logit_processor_kwargs["plan"]
    return plan


def prompt_and_output(state: Any, prompt_tokens: int) -> tuple[list[int], list[int]]:
    """Return a request's prompt and the tokens generated so far.

    A request that lost its cache comes back with its output as part of the prompt.
    """
    initial = state.initial_tokens
    return initial[:prompt_tokens], initial[prompt_tokens:] + state.generated_tokens


class _Step(threading.local):
    """Keep the layout of the step that a generation thread is in, from its first layer to its last."""

    read: Any = None
    layout: Layout | None = None


_STEP = _Step()


def paged_attention(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,  # noqa: ARG001 - the library makes none for an attention that it does not know
    *,
    scaling: float | None = None,
    cache: Any,
    read_index: list[Any],
    write_index: list[Any],
    cu_seq_lens_q: Any,
    cu_seq_lens_k: dict[str, Any],
    max_length_q: int,
    max_length_k: dict[str, int],
    **_: Any,
) -> tuple[Any, None]:
    """Write a layer's new keys and values to the cache and attend to what each request has there."""
    allocator = cache.layer_to_allocator[module.layer_idx]
    kind, read = allocator.layer_type, read_index[allocator.index]
    layout = _STEP.layout
    if layout is None or _STEP.read is not read:
        layout = lay_out(
            read,
            cu_seq_lens_q,
            cu_seq_lens_k[kind],
            longest_query=max_length_q,
            longest=max_length_k[kind],
            padding=allocator.read_trash_index,
        )
        _STEP.read, _STEP.layout = read, layout
    keys, values = (x[0].transpose(0, 1) for x in (key, value))
    keys, values = allocator.update(keys, values, module.layer_idx, layout.read, write_index[allocator.index])
    return attend(query, keys, values, layout, scaling), None


AttentionInterface.register(ATTENTION, paged_attention)


def takes_our_attention(model: Any) -> bool:
    """Tell whether a model attends in a way that ours can stand in for: sdpa over all that came before."""
    kinds = group_layers_by_attn_type(model.config.get_text_config())
    return attention_of(model) == "sdpa" and set(kinds) == {FULL_ATTENTION}


def attention_of(model: Any) -> str:
    """Return the name of a model's attention."""
    return str(model.config._attn_implementation)  # noqa: SLF001 - it has no other name


Output = tuple[str, list[int], bool]
"""Of one request: its name, its new tokens, and whether it has ended."""


class Router(OutputRouter):  # type: ignore[misc]
    """Report requests that failed. What the others made, :class:`Manager` reads from their states after each step.

    The library would copy all tokens so far of every request, with every step.
    """

    def __init__(self, failed: Callable[[str, Exception], None]) -> None:
        super().__init__()
        self._failed = failed

    def deliver(self, output: Any) -> None:
        """Ignore a request that ended."""

    def deliver_batch(self, outputs: list[Any]) -> None:
        """Ignore the requests that ended with a step."""

    def fail_and_deliver(self, state: Any, error: Exception) -> None:
        """Report a request that failed."""
        state.status = RequestStatus.FAILED
        self._failed(state.request_id, error)


def outputs_of(batch: list[Any]) -> list[Output]:
    """Return what the step that just ran this batch made."""
    outputs: list[Output] = []
    for scheduled in batch:
        if scheduled.has_new_token:
            state = scheduled.state
            plan = plan_of(state)
            finished = state.status >= RequestStatus.FINISHED
            if not plan.final:
                outputs.append((state.request_id, state.generated_tokens[-1:], finished))
            elif finished:
                outputs.append((state.request_id, prompt_and_output(state, plan.prompt_tokens)[1], True))
    return outputs


class TurnScheduler(FIFOScheduler):  # type: ignore[misc]
    """Schedule as the library does, but only requests of one adapter at a time, and by priority where one is set."""

    turns: Turns = Turns(1)
    turn: str | None = None
    snapshot: tuple[int, float] = (0, 0.0)
    starved_requests: list[Any]
    _salt: tuple[int, ...] | None = None
    _waiting: dict[str | None, list[Any]] | None = None
    """What :meth:`_waiting_groups` returned, while it holds."""

    def schedule_batch(self, token_budget: int, cache_budget: int) -> tuple[list[Any] | None, bool, int, int]:
        """Return the next batch, of whoever's turn it is; whoever cannot run for lack of cache is passed over."""
        groups = self._groups()
        starved: list[Any] = []
        failed = False
        for key in self.turns.order(groups):
            removed: set[str] = set()
            scheduled, one_failed, fast, queries, reads = self._process_candidates(
                groups[key], token_budget, cache_budget, removed
            )
            if removed:
                self._cleanup_waiting_queue(removed)
            starved += self.starved_requests
            failed = failed or one_failed
            if scheduled:
                self.turns.ran(key)
                self.turn = key
                self.starved_requests = starved
                self.snapshot = (len(scheduled), 1.0 - self.cache.compute_free_capacity())
                return scheduled, fast, queries, reads
        self.starved_requests = starved
        return (None if failed else []), False, 0, 0

    def _groups(self) -> dict[str | None, list[Any]]:
        """Return the candidates of each adapter: those that decode, those half prefilled, those that wait."""
        groups: dict[str | None, list[Any]] = {}
        prefilling: list[Any] = []
        for state in self.active_requests.values():
            if state.status == RequestStatus.DECODING:
                groups.setdefault(plan_of(state).adapter, []).append(state)
            elif state.status == RequestStatus.PREFILLING:
                prefilling.append(state)
        if not self.active_requests:
            self.block_new_requests = False  # the library waits for one to finish, even if the last was cancelled
        self._fill(groups, prefilling)
        if self.waiting_requests and not self.block_new_requests:
            if self._waiting is None:
                self._waiting = self._waiting_groups()
            for key, waiting in self._waiting.items():
                group = groups.setdefault(key, [])
                group += waiting[: max(0, self.max_requests_per_batch - len(group))]
        return groups

    def _fill(self, groups: dict[str | None, list[Any]], states: list[Any]) -> None:
        """Add requests to the groups of their adapters, to each no more than a step can hold."""
        for state in states:
            group = groups.setdefault(plan_of(state).adapter, [])
            if len(group) < self.max_requests_per_batch:
                group.append(state)

    def _waiting_groups(self) -> dict[str | None, list[Any]]:
        """Return the first of those that wait for each adapter; looking at all of them takes long where many wait."""
        waiting = self._get_waiting_candidates()
        if any(plan_of(state).priority for state in waiting):
            waiting.sort(key=lambda state: plan_of(state).priority)
        groups: dict[str | None, list[Any]] = {}
        self._fill(groups, waiting)
        return groups

    def add_waiting_request(self, state: Any) -> None:
        """Let a request wait, a new one or one that lost its cache."""
        self._waiting = None
        super().add_waiting_request(state)

    def clear_cancelled_requests(self) -> list[Any]:
        """Drop the requests that were cancelled and return them."""
        cancelled: list[Any] = super().clear_cancelled_requests()
        if cancelled:
            self._waiting = None
        return cancelled

    def _cleanup_waiting_queue(self, request_ids_to_remove_from_waiting: set[str]) -> None:
        self._waiting = None
        super()._cleanup_waiting_queue(request_ids_to_remove_from_waiting)

    def _infer_request_tokens(self, state: Any, request_ids_to_remove_from_waiting: set[str]) -> list[int]:
        if state.status == RequestStatus.DECODING:
            return state.tokens_to_process  # type: ignore[no-any-return]
        plan = plan_of(state)
        self._salt = plan.salt
        first = plan.cached_tokens is None
        tokens: list[int] = super()._infer_request_tokens(state, request_ids_to_remove_from_waiting)
        if first:
            plan.cached_tokens = state.position_offset
        return tokens

    def salt_prefixes(self) -> None:
        """Make the cache find and register blocks under the salt of their request."""
        cache, search = self.cache, self.cache.search_prefix_match

        def find(request_id: str, prompt_ids: list[int]) -> int:
            return int(search(request_id, salted(prompt_ids, self._salt)))

        def register(state: Any, complete_blocks: dict[str, int]) -> None:
            # The library leaves out requests that end with this step, which only matters where steps overlap.
            if cache.allow_block_sharing and complete_blocks:
                tokens = salted(state.initial_tokens + state.generated_tokens, plan_of(state).salt)
                for name, count in complete_blocks.items():
                    cache.cache_allocators[name].mark_complete_blocks(state.request_id, tokens, count)

        cache.search_prefix_match, cache.mark_complete_blocks = find, register


SCHEDULER_MAPPING[_SCHEDULER] = TurnScheduler


class Manager(ContinuousBatchingManager):  # type: ignore[misc]
    """Run the library's generation thread with our scheduler and sampler, in torch's inference mode.

    Called on that thread: ``activate(adapter)`` before each step and ``received(outputs)`` after it,
    ``failed(name, error)`` for a request that failed alone, ``ended(error)`` when the thread is about to end.
    """

    def __init__(
        self,
        model: Any,
        *,
        settings: dict[str, Any],
        eos: Iterable[int],
        sampler: LogitsProcessorList,
        received: Callable[[list[Output]], None],
        failed: Callable[[str, Exception], None],
        turns: Turns,
        activate: Callable[[str | None], None],
        ended: Callable[[BaseException | None], None],
        threads: int | None,
    ) -> None:
        super().__init__(
            model=model,
            generation_config=GenerationConfig(do_sample=False, eos_token_id=list(eos) or -1),
            continuous_batching_config=ContinuousBatchingConfig(
                **settings, scheduler_type=_SCHEDULER, use_cuda_graph=False, use_async_batching=False
            ),
        )
        self.logit_processor = sampler
        self.output_router = Router(failed)
        self._received = received
        self._turns = turns
        self._activate = activate
        self._ended = ended
        self._threads = threads
        self._closed = False
        self._stepped = False
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()

    def switch_to_cb_friendly_attn(self, model: Any, auto_switch_to_flash: bool = True) -> None:  # noqa: FBT001, FBT002
        """Leave a model alone that has our attention; the library allows its own only."""
        if attention_of(model) != ATTENTION:
            super().switch_to_cb_friendly_attn(model, auto_switch_to_flash)

    def prepare(self) -> int:
        """Allocate the cache; return the tokens that one request may have, prompt and output."""
        self.warmup()
        return int(infer_max_single_request_tokens(self.batch_processor.cache))

    def call(self, function: Callable[[], Any]) -> Future[Any]:
        """Call a function between two steps, on the generation thread, which alone may change the model."""
        future: Future[Any] = Future()
        self._calls.put((function, future))
        if self._closed:  # nobody will come for it
            self._give_up_calls()
        self._wake_up_loop.set()
        return future

    def _give_up_calls(self) -> None:
        while True:
            try:
                self._calls.get_nowait()[1].cancel()
            except queue.Empty:
                return

    @property
    def scheduler(self) -> TurnScheduler:
        """Return the scheduler."""
        scheduler: TurnScheduler = self.batch_processor.scheduler
        return scheduler

    def _create_batch_processor(self) -> Any:
        made = self.batch_processor is None
        processor = super()._create_batch_processor()
        if made:
            processor.scheduler.turns = self._turns
            processor.scheduler.salt_prefixes()
        return processor

    def _generation_loop_body(self, batch_processor: Any, *args: Any, **kwargs: Any) -> bool:
        if not self._calls.empty():
            self._run_calls()
        goes_on = bool(super()._generation_loop_body(batch_processor, *args, **kwargs))
        if self._stepped:
            self._stepped = False
            if outputs := outputs_of(batch_processor.inputs_and_outputs.requests_in_batch):
                self._received(outputs)
        return goes_on

    def _run_calls(self) -> None:
        with torch.inference_mode(mode=False):  # what a call changes of the model must be of use outside of it
            while not self._calls.empty():
                function, future = self._calls.get()
                if future.set_running_or_notify_cancel():
                    try:
                        future.set_result(function())
                    except Exception as error:  # noqa: BLE001 - it is the caller's
                        future.set_exception(error)

    def _generation_step(self) -> None:
        self._activate(self.scheduler.turn)
        super()._generation_step()
        self._stepped = True

    def _handle_critical_error(self, error: Exception, batch_processor: Any) -> None:
        self._ended(error)  # before the requests are failed one by one, for the reason they share
        super()._handle_critical_error(error, batch_processor)

    def _run_generation_loop(self) -> None:
        if self._threads is not None:
            torch.set_num_threads(self._threads)
        try:
            with torch.inference_mode():
                super()._run_generation_loop()
        finally:
            self._closed = True
            self._give_up_calls()
            self._ended(self.background_thread_status.fatal_error)


__all__ = [
    "ATTENTION",
    "VERSION",
    "LogitsProcessorList",
    "Manager",
    "NoProcessors",
    "Output",
    "RequestStatus",
    "TurnScheduler",
    "attention_of",
    "plan_of",
    "prompt_and_output",
    "takes_our_attention",
]
