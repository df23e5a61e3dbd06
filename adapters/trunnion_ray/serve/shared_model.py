"""Serve the pipeline of one replica among others: an order is carried out by all of them."""

from __future__ import annotations

import logging
from typing import Any

from ray import serve

from trunnion.adapter_library import AdapterLibrary
from trunnion.pipeline import Pipeline
from trunnion_http import PipelineModel
from trunnion_http.administration import Order

from .order_desk import DeskMember

_log = logging.getLogger("trunnion.serve")


class SharedModel(PipelineModel):
    """Pass orders on to the desk, which brings them to every replica, this one included."""

    __slots__ = ("_member",)

    def __init__(self, name: str, pipeline: Pipeline, library: AdapterLibrary | None, desk: Any) -> None:
        """Take the desk's handle; None for a deployment without one, whose replica then obeys alone."""
        super().__init__(name, pipeline, library)
        self._member: DeskMember | None = None
        if desk is not None:
            replica = serve.get_replica_context().replica_id.unique_id
            self._member = DeskMember(desk, replica, super().administer)

    async def administer(self, order: Order) -> None:
        """Have every replica of the model carry an order out. Raises what one of them failed with."""
        if self._member is None:
            await super().administer(order)
        else:
            await self._member.order(order)

    async def catch_up(self, seconds: float) -> None:
        """Wait until this replica has the adapters that the others were ordered to load."""
        if self._member is not None and not await self._member.caught_up(seconds):
            _log.warning("%r serves before it knows which adapters the other replicas have", self.name)

    def close(self) -> None:
        """Take no more orders."""
        if self._member is not None:
            self._member.close()
