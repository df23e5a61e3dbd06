"""Conversations: piped, single, and on a terminal where Ctrl-C is a key."""

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
import time

import pytest
from cli_lines import COMMAND, wait_for_line

SIM = ("--engine", "sim")


def test_one_message_prints_the_answer_alone(cli):
    result = cli.run("chat", *SIM, "--message", "hello", "--sampling", "max_tokens=4")
    assert result.code == 0, result
    assert len(result.out.split()) == 4
    assert result.err == ""


def test_a_conversation_is_remembered_until_reset(cli):
    text = "hello\nhello\n/reset\nhello\n/nonesuch\n/exit\nnever said\n"
    result = cli.run("chat", *SIM, "--system", "be brief", "--sampling", "max_tokens=3", text=text)
    assert result.code == 0, result
    first, second, third = result.out.splitlines()
    assert first == third
    assert first != second
    assert "no command /nonesuch" in result.err


def test_a_refused_turn_leaves_the_conversation_going(cli):
    text = "word " * 200 + "\nhello\n"
    result = cli.run("chat", *SIM, "--set", "context_length=100", "--sampling", "max_tokens=3", text=text)
    assert result.code == 0, result
    assert "prompt tokens and 3 to generate exceed" in result.err
    assert len(result.out.split()) == 3


def test_a_failure_of_the_one_message_is_one_line(cli):
    result = cli.run("chat", *SIM, "--set", "fault=die", "--message", "hello")
    assert result.code == 1
    assert result.err == "error: the simulated engine broke this stream on demand\n"


def test_sigint_stops_the_answer_and_twice_ends_the_session(cli):
    process = cli.start("chat", *SIM, "--set", "tpot=0.05", "--sampling", "max_tokens=500", stdin=subprocess.PIPE)
    process.stdin.write("tell me everything\n")
    process.stdin.flush()
    assert process.stdout.read(4)
    os.killpg(process.pid, signal.SIGINT)
    wait_for_line(process.stderr, "stopped")
    assert cli.interrupt(process).code == 130


class Terminal:
    """Type into a command on a pseudo-terminal, and read its screen."""

    def __init__(self, *arguments):
        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:
            os.execv(sys.executable, [*COMMAND, *arguments])
        self.screen = ""

    def type(self, text):
        os.write(self.descriptor, text.encode())

    def expect(self, wanted, seconds=15.0):
        deadline = time.monotonic() + seconds
        while wanted not in self.screen:
            left = deadline - time.monotonic()
            assert left > 0, f"no {wanted!r} on the screen:\n{self.screen}"
            if select.select([self.descriptor], [], [], left)[0]:
                self.screen += os.read(self.descriptor, 4096).decode(errors="replace")
        before, _, self.screen = self.screen.partition(wanted)
        return before

    def end(self):
        try:
            while os.read(self.descriptor, 4096):
                pass
        except OSError:
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_on_a_terminal_ctrl_c_reaches_the_answer_and_not_the_engine():
    terminal = Terminal("chat", *SIM, "--set", "tpot=0.05", "--sampling", "max_tokens=500")
    try:
        terminal.expect("> ")
        terminal.type("tell me everything\n")
        terminal.expect("\n")
        time.sleep(0.3)
        terminal.type("\x03")
        terminal.expect("(stopped; Ctrl-C again quits)")
        terminal.expect("> ")
        terminal.type("/reset\n")
        terminal.expect("(forgotten)")
        terminal.expect("> ")
        terminal.type("half a line\x03")
        terminal.expect("(Ctrl-C again quits)")
        terminal.type("\x03")
        assert terminal.end() == 130
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(terminal.pid, signal.SIGKILL)
        os.close(terminal.descriptor)
