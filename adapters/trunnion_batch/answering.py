"""Answer requests from what is known already, or else from the engine: a journal, a cache, and equal rows in flight."""

from __future__ import annotations

import asyncio
import copy
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from trunnion import PipelineSpec, Prepared, get_registry
from trunnion.errors import TrunnionError
from trunnion.pooling import PoolingRequest
from trunnion.row_tasks import RowAnswer, RowRequest

from .journal import Journal
from .keys import RequestKeys
from .prefix_order import PrefixQueue, prompt_key
from .supervisor import Supervisor

Share = Literal["deterministic", "all"]
_REMEMBERED: Final = 4096
"""Answers that later rows may share; a cache holds all of them."""


class Answered(NamedTuple):
    """Hold an answer, and whether the engine was spared."""

    completion: RowAnswer
    replayed: bool = False


class Answerer:
    """Answer requests on the supervisor's loop. The journal and the cache belong to whoever made them.

    ``share`` says whose answers rows may share, in the cache and with ``deduplicate``: those that would come out the
    same anyway (greedy, or with a seed), or all. A journal shares nothing: an answer is one row's. ``order`` decides
    who goes to the engine next.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        spec: PipelineSpec,
        *,
        journal: Journal | None = None,
        cache: Journal | None = None,
        deduplicate: bool = False,
        share: Share = "deterministic",
        order: PrefixQueue | None = None,
    ) -> None:
        self.supervisor = supervisor
        self._order = order
        self._journal = journal
        self._cache = cache
        self._deduplicate = deduplicate
        self._share = share
        self._keys = request_keys(spec) if journal is not None or cache is not None or deduplicate else None
        self._prepares = self._keys is not None or order is not None
        self._shared: OrderedDict[bytes, asyncio.Future[RowAnswer]] = OrderedDict()

    @property
    def prices(self) -> Mapping[str, float] | None:
        """Return the prices of the engine's tokens, where it has some."""
        prices: Mapping[str, float] | None = self.supervisor.pipeline.info.details.get("prices")
        return prices

    async def answer(self, request: RowRequest) -> Answered:
        """Answer one request. Raises what :meth:`Supervisor.answer` raises, or that a journal cannot be written."""
        if not self._prepares:
            return Answered(await self.supervisor.answer(request))
        prepared: Prepared | None = None
        hooked = self.supervisor.pipeline.has_request_hooks  # they may change what is rendered: the key is made before
        if not hooked and not isinstance(request, PoolingRequest):
            (made,) = self.supervisor.pipeline.prepare([request])
            if isinstance(made, TrunnionError):
                raise made
            prepared = made
        if self._keys is None:
            return Answered(await self._ask(request, prepared))
        key = self._keys.key(request, prepared)
        if self._journal is not None:
            known = self._journal.take(key)
            if known is not None:
                return Answered(known, replayed=True)
        answered = await self._beyond_journal(key, request, prepared)
        if self._journal is not None:
            self._journal.add(key, answered.completion)
        return answered

    async def _ask(self, request: RowRequest, prepared: Prepared | None) -> RowAnswer:
        if self._order is None:
            return await self.supervisor.answer(request, prepared)
        async with self._order.slot(prompt_key(request.prompt if prepared is None else prepared.request.prompt)):
            return await self.supervisor.answer(request, prepared)

    async def _beyond_journal(self, key: bytes, request: RowRequest, prepared: Prepared | None) -> Answered:
        if not self._may_share(request):
            return Answered(await self._ask(request, prepared))
        if self._cache is not None:
            known = self._cache.take(key)
            if known is not None:
                return Answered(known, replayed=True)
        if not self._deduplicate:
            completion = await self._ask(request, prepared)
        else:
            other = self._shared.get(key)
            if other is not None:
                self._shared.move_to_end(key)
                return Answered(copy.deepcopy(await asyncio.shield(other)), replayed=True)
            completion = await self._asked_for_all(key, request, prepared)
        if self._cache is not None:
            self._cache.add(key, completion)
        return Answered(completion)

    async def _asked_for_all(self, key: bytes, request: RowRequest, prepared: Prepared | None) -> RowAnswer:
        """Ask once for all the rows of a key; if that fails, so do those that waited for it, and the next one asks."""
        shared: asyncio.Future[RowAnswer] = asyncio.get_running_loop().create_future()
        self._shared[key] = shared
        try:
            completion = await self._ask(request, prepared)
        except BaseException as error:
            self._shared.pop(key, None)
            if isinstance(error, asyncio.CancelledError):
                shared.cancel()
            else:
                shared.set_exception(error)
                shared.exception()  # nobody may wait for it
            raise
        shared.set_result(completion)
        while len(self._shared) > _REMEMBERED:
            self._shared.popitem(last=False)
        return completion

    def _may_share(self, request: RowRequest) -> bool:
        if self._cache is None and not self._deduplicate:
            return False
        return self._share == "all" or is_deterministic(request)


def is_deterministic(request: RowRequest) -> bool:
    """Tell whether the same request gives the same answer again: drawn greedily, by a seed of its own, or not drawn."""
    return isinstance(request, PoolingRequest) or request.sampling.temperature == 0 or request.sampling.seed is not None


def request_keys(spec: PipelineSpec) -> RequestKeys:
    """Return what makes the keys of a pipeline's requests."""
    plugin = get_registry(spec.policy).engine(spec.engine.engine)
    return RequestKeys(spec.engine, plugin.semantic_version, hooks=spec.hooks)
