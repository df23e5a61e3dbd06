from dataclasses import replace

from trunnion import TextPrompt
from trunnion.errors import InvalidArgument


class Flatten:
    def __init__(self, context, config):
        self.model = context.info.model

    def process(self, items):
        return [self._one(item) for item in items]

    def _one(self, request):
        said = [message["content"] for message in request.prompt.messages]
        if not all(isinstance(content, str) for content in said):
            return InvalidArgument("messages must be plain text", param="messages")
        return request.with_(prompt=TextPrompt(text=" ".join(said), add_special_tokens=False))


class Shout:
    def __init__(self, context, config):
        pass

    def open(self, request):
        return ShoutOne() if request.sampling.n == 1 else None


class ShoutOne:
    done = False

    def feed(self, event):
        return [replace(event, choices=tuple(replace(choice, text=choice.text.upper()) for choice in event.choices))]

    def finish(self):
        return []
