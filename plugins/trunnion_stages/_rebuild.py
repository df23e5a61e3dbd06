"""Build events anew with some parts changed; written out, since ``dataclasses.replace`` takes twice as long."""

from __future__ import annotations

from trunnion.events import ChoiceDelta, GenerateEvent


def with_choices(event: GenerateEvent, made: list[ChoiceDelta]) -> GenerateEvent:
    """Return the event with these choices; the event itself if they are its own."""
    choices = event.choices
    if len(made) == 1 == len(choices):
        if made[0] is choices[0]:
            return event
    elif len(made) == len(choices) and all(new is old for new, old in zip(made, choices, strict=True)):
        return event
    return GenerateEvent(
        choices=tuple(made), usage=event.usage, prompt_logprobs=event.prompt_logprobs, handoff=event.handoff
    )


def with_text(delta: ChoiceDelta, text: str, *, stopped_by: str | None = None) -> ChoiceDelta:
    """Return the delta with another text, and stopped by a stop string if one is given."""
    return ChoiceDelta(
        index=delta.index,
        text=text,
        token_ids=delta.token_ids,
        reasoning=delta.reasoning,
        tool_calls=delta.tool_calls,
        logprobs=delta.logprobs,
        finish_reason=delta.finish_reason if stopped_by is None else "stop",
        stop_reason=delta.stop_reason if stopped_by is None else stopped_by,
    )
