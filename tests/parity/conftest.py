"""Start each engine once for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

import trunnion
from trunnion import SyncPipeline

from .engines import CASES, EngineCase


@pytest.fixture(scope="session", params=CASES, ids=lambda case: case.engine)
def case(request: pytest.FixtureRequest) -> EngineCase:
    if not request.param.served:
        return request.param
    return replace(request.param, config={**request.param.config, "base_url": request.getfixturevalue("vllm_url")})


@pytest.fixture(scope="session")
def pipeline(case: EngineCase) -> Iterator[SyncPipeline]:
    with SyncPipeline(trunnion.engine_spec(case.engine, case.model, case.config)) as pipeline:
        yield pipeline
