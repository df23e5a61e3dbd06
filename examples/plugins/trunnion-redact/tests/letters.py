"""An engine that says its prompt back letter by letter: as reasoning, as text, and as the arguments of a call."""

import json

import trunnion as t


@t.hookimpl
def trunnion_engines():
    yes = ("sampling.n", "tools")
    capabilities = t.Capabilities.of(yes=yes, prompts=("text",))
    return [t.EnginePlugin(name="letters", factory="letters:Letters", needs_model=False, capabilities=capabilities)]


class Letters:
    def __init__(self, model, config):
        self.seen = []

    async def start(self):
        return t.EngineInfo(engine="letters", model="letters")

    async def generate(self, request):
        self.seen.append(request)
        text, choices = request.prompt.text, range(request.sampling.n)
        arguments = json.dumps({"to": text})
        for field in ("reasoning", "text"):
            for letter in text:
                yield t.GenerateEvent(choices=tuple(t.ChoiceDelta(index=i, **{field: letter}) for i in choices))
        for place, letter in enumerate(arguments):
            head = {} if place else {"id": "c", "name": "mail"}
            call = t.ToolCallDelta(index=0, arguments=letter, **head)
            yield t.GenerateEvent(choices=tuple(t.ChoiceDelta(index=i, tool_calls=(call,)) for i in choices))
        ends = tuple(t.ChoiceDelta(index=i, finish_reason="tool_calls") for i in choices)
        yield t.GenerateEvent(choices=ends, usage=t.Usage(prompt_tokens=1, completion_tokens=1))

    async def stop(self, *, drain=0.0):
        pass
