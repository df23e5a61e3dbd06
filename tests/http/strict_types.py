"""Hold what a client returned to its own types."""

import pydantic


def every(model):
    """Yield a model and all models in it, however deep; fail on any field that its own type does not have."""
    assert not model.model_extra, f"{type(model).__name__} has extra fields {model.model_extra}"
    yield model
    for name in type(model).model_fields:
        value = getattr(model, name)
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, pydantic.BaseModel):
                yield from every(item)
