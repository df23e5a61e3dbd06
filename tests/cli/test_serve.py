"""One process that serves: it says where, refuses until ready, answers, and ends without a trace."""

import json
import signal
import socket
import urllib.error
import urllib.request

import pytest
from cli_lines import wait_for_line

SIM = ("--engine", "sim")


def ask(url, **body):
    message = {"messages": [{"role": "user", "content": "hi"}], **body}
    request = urllib.request.Request(
        f"{url}/chat/completions", json.dumps(message).encode(), {"content-type": "application/json"}
    )
    return urllib.request.urlopen(request, timeout=10)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_a_signal_and_ends_streams(cli, number):
    process = cli.start(
        "serve", "some-model", *SIM, "--port", "0", "--adapter", "loud", "--set", "tpot=0.05", "--drain", "0.5"
    )
    said = wait_for_line(process.stderr, "Ctrl-C stops it")
    assert "ready: some-model and its adapters loud at http://127.0.0.1:" in said
    assert "curl http://127.0.0.1:" in said
    url = said.partition(" at ")[2].split()[0]
    with ask(url, model="loud", max_tokens=2) as response:
        assert json.load(response)["choices"][0]["message"]["content"].isupper()
    stream = ask(url, model="some-model", max_tokens=5000, stream=True)
    assert stream.readline().startswith(b"data: ")
    result = cli.interrupt(process, number)
    assert result.code == 128 + number, result
    assert "stopping" in result.err
    assert "Traceback" not in result.err
    last = [line for line in stream.read().decode().splitlines() if line.startswith("data: ")][-1]
    assert "the engine was stopped" in json.loads(last.removeprefix("data: "))["error"]["message"]
    stream.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_streams_at_once(cli, number):
    drain = 100
    process = cli.start("serve", *SIM, "--name", "m", "--port", "0", "--set", "tpot=0.05", "--drain", str(drain))
    url = wait_for_line(process.stderr, "Ctrl-C stops it").partition(" at ")[2].split()[0]
    with ask(url, model="m", max_tokens=5000, stream=True) as stream:
        assert stream.readline().startswith(b"data: ")
        process.send_signal(signal.SIGINT)
        wait_for_line(process.stderr, "stopping")
        result = cli.interrupt(process, number, timeout=drain / 2)
        assert result.code == 128 + number, result
        assert "the engine was stopped" in stream.read().decode()


def test_a_port_that_is_taken_is_found_out_before_the_engine_starts(cli):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = cli.run("serve", *SIM, "--port", port, "--set", "startup_seconds=30")
    assert result.code == 2
    assert f"error: cannot listen on 127.0.0.1:{port}" in result.err


@pytest.mark.parametrize("ray", [(), ("--ray",)], ids=["here", "ray"])
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--api-keys-env", "NOPE"), "error: api_keys_env names NOPE, which holds no key; set it to one or more"),
        (("--admin-keys-file", "nowhere"), "error: admin_keys_file: nowhere cannot be read: "),
    ],
)
def test_keys_that_are_not_there_are_found_out_before_anything_starts(cli, ray, flags, said):
    result = cli.run("serve", *SIM, "--port", "0", *ray, *flags, "--set", "startup_seconds=30")
    assert result.code == 2
    (line,) = result.err.splitlines()
    assert line.startswith(said)


def test_ctrl_c_while_the_engine_starts(cli):
    process = cli.start("serve", *SIM, "--port", "0", "--set", "startup_seconds=60")
    wait_for_line(process.stderr, "starting sim")
    assert cli.interrupt(process).code == 130


def test_a_full_server_refuses(cli):
    process = cli.start("serve", *SIM, "--port", "0", "--set", "tpot=0.05", "--max-requests", "1")
    url = wait_for_line(process.stderr, "Ctrl-C stops it").partition(" at ")[2].split()[0]
    stream = ask(url, max_tokens=5000, stream=True)
    assert stream.readline().startswith(b"data: ")
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask(url, max_tokens=1)
    assert caught.value.code == 429
    stream.close()
    cli.interrupt(process, signal.SIGINT)


def test_any_setting_of_the_http_surface(cli):
    process = cli.start("serve", *SIM, "--port", "0", "--http", "max_body_bytes=60", "--http", "max_choices=2")
    url = wait_for_line(process.stderr, "Ctrl-C stops it").partition(" at ")[2].split()[0]
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask(url, max_tokens=1, user="x" * 60)
    assert caught.value.code == 413
    cli.interrupt(process, signal.SIGINT)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--http", "max_body_byte=60"], "did you mean 'max_body_bytes'"),
        (["--http", "max_choices=none"], "max_choices"),
        (["--http", "max_requests=1", "--max-requests", "2"], "max_requests is given twice"),
    ],
)
def test_a_wrong_setting_of_the_http_surface(cli, flags, said):
    result = cli.run("serve", *SIM, "--port", "0", *flags)
    assert result.code == 2
    assert said in result.err


def test_a_crash_of_native_code_is_told(cli):
    process = cli.start("serve", "--engine", "sim", "--port", "0")
    wait_for_line(process.stderr, "Ctrl-C stops it")
    result = cli.interrupt(process, signal.SIGSEGV)
    assert result.code == -signal.SIGSEGV
    assert "Fatal Python error: Segmentation fault" in result.err
