"""The engine takes no images, and says so by name before anything reaches it."""

import base64

import pytest
from hf_lab import SETTINGS

import trunnion
from trunnion.errors import UnsupportedFeature
from trunnion.rows import row_to_request

pytestmark = pytest.mark.engine

PNG = b"\x89PNG\r\n\x1a\n" + b"picture"
DATA = "data:image/png;base64," + base64.b64encode(PNG).decode()


async def test_images_are_refused_by_name(model):
    spec = trunnion.engine_spec("transformers", model, {**SETTINGS, "gc_freeze": False})
    media = trunnion.MediaPolicy(allowed_hosts=["*"])
    async with trunnion.open_pipeline(trunnion.PipelineSpec(engine=spec, media=media)) as pipeline:
        for part in (
            {"type": "image", "image": PNG},
            {"type": "image_url", "image_url": {"url": DATA}},
            {"type": "image_url", "image_url": {"url": "https://images.example/a.png"}},
        ):
            request = row_to_request({"messages": [{"role": "user", "content": [part]}]})
            (prepared,) = pipeline.prepare([request])
            assert isinstance(prepared, UnsupportedFeature)
            with pytest.raises(UnsupportedFeature, match="token ids alone") as caught:
                await pipeline.complete(request)
            assert caught.value.param == prepared.param == "media.image"
