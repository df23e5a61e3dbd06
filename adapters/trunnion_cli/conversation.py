"""Hold a conversation with an engine of this process, streaming its answers."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any, Final, TextIO

from trunnion import EngineSpec, Pipeline
from trunnion.errors import EngineDead, TrunnionError
from trunnion.rows import RowOptions, row_to_request

from .chat_input import ChatInput, terminal_keys
from .console import complain, say
from .interrupts import Interrupts
from .starting import opened

_HELP: Final = "/reset forgets the conversation, /exit quits; Ctrl-C stops an answer, twice it quits"
_COMMANDS: Final = ("/reset", "/exit", "/help")


class Conversation:
    """Keep the messages, and stream answers to ``out``."""

    def __init__(
        self,
        spec: EngineSpec,
        options: RowOptions,
        out: TextIO,
        *,
        hooks: Mapping[str, Any],
        system: str | None,
        adapter: str | None,
    ) -> None:
        self._spec = spec
        self._hooks = hooks
        self._options = options
        self._out = out
        self._adapter = adapter
        self._system: list[dict[str, Any]] = [] if system is None else [{"role": "system", "content": system}]
        self._messages = list(self._system)

    async def ask_once(self, text: str) -> None:
        """Ask one thing and end. Raises what the engine raises."""
        async with opened(self._spec, hooks=self._hooks, quiet=True) as pipeline:
            await self._answer(pipeline, text)

    async def hold(self, interrupts: Interrupts) -> int:
        """Converse until /exit, the end of input or Ctrl-C twice; return the exit code."""
        say(f"starting {self._spec.engine}" + (f" with {self._spec.model}" if self._spec.model else "") + " ...")
        async with opened(self._spec, hooks=self._hooks) as pipeline:
            say(_HELP)
            with terminal_keys():
                reader = ChatInput()
                self._listen(reader, interrupts)
                reader.start()
                return await self._converse(pipeline, reader)

    @staticmethod
    def _listen(reader: ChatInput, interrupts: Interrupts) -> None:
        """Let SIGINT do what the key does; SIGTERM still ends the session."""
        cancel = interrupts.action
        loop = asyncio.get_running_loop()

        def action() -> None:
            if interrupts.signal == signal.SIGTERM:
                cancel()
                return
            interrupts.forgive()
            loop.call_soon_threadsafe(reader.interrupted.set)

        interrupts.action = action

    async def _converse(self, pipeline: Pipeline, reader: ChatInput) -> int:
        warned = False
        while True:
            self._prompt()
            line = await self._line(reader)
            if line is _INTERRUPT:
                if warned:
                    return 130
                warned = True
                say("\n(Ctrl-C again quits)")
                continue
            if line is None or line.strip() == "/exit":
                return 0
            warned = False
            if line.strip():
                warned = await self._turn(pipeline, reader, line)

    async def _line(self, reader: ChatInput) -> Any:
        """Return the next line, None at the end of input, or the sign of an interrupt."""
        getting = asyncio.ensure_future(reader.lines.get())
        struck = asyncio.ensure_future(reader.interrupted.wait())
        try:
            await asyncio.wait({getting, struck}, return_when=asyncio.FIRST_COMPLETED)
            if struck.done():
                reader.interrupted.clear()
                return _INTERRUPT
            return getting.result()
        finally:
            getting.cancel()
            struck.cancel()

    async def _turn(self, pipeline: Pipeline, reader: ChatInput, line: str) -> bool:
        """Handle one line; return whether its answer was stopped by Ctrl-C."""
        word = line.strip()
        if word == "/reset":
            self._messages = list(self._system)
            say("(forgotten)")
            return False
        if word.startswith("/") and " " not in word:
            say(_HELP if word == "/help" else f"no command {word}; there are {', '.join(_COMMANDS)}")
            return False
        answer = asyncio.ensure_future(self._answer(pipeline, line))
        struck = asyncio.ensure_future(reader.interrupted.wait())
        try:
            await asyncio.wait({answer, struck}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                answer.cancel()
                await asyncio.gather(answer, return_exceptions=True)
                reader.interrupted.clear()
                say("\n(stopped; Ctrl-C again quits)")
                return True
            answer.result()
        except EngineDead:
            raise
        except TrunnionError as error:
            complain(str(error))
        finally:
            answer.cancel()
            struck.cancel()
        return False

    async def _answer(self, pipeline: Pipeline, text: str) -> None:
        """Stream one answer, and remember it as far as it came."""
        row = {"messages": [*self._messages, {"role": "user", "content": text}], "model": self._adapter}
        request = row_to_request(row, self._options)
        said: list[str] = []
        try:
            async with aclosing(pipeline.generate(request)) as events:
                async for event in events:
                    for choice in event.choices:
                        if choice.index == 0 and choice.text:
                            said.append(choice.text)
                            self._out.write(choice.text)
                            self._out.flush()
        finally:
            if said:
                self._messages = [*row["messages"], {"role": "assistant", "content": "".join(said)}]  # type: ignore[misc]
        self._out.write("\n")
        self._out.flush()

    def _prompt(self) -> None:
        if sys.stdin.isatty():
            self._out.write("> ")
            self._out.flush()


_INTERRUPT: Final = object()
