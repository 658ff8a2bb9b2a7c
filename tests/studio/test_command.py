"""The command: it prints its address on one line, and Ctrl-C ends it."""

from __future__ import annotations

import http.client
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support import call

import scorefield.cli.studio


def test_it_prints_its_address_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "scorefield", "studio", str(tmp_path), "--no-open", "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/#token=([\w-]{20,})\n", line)
        assert found is not None, line + process.stderr.read()
        port, token = int(found[1]), found[2]
        stream = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        stream.request("GET", "/api/state", headers={"X-Scorefield-Token": token})
        assert stream.getresponse().status == 200  # the connection stays open
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        stream.close()
    assert (process.returncode in (0, 130), out) == (True, ""), err
    assert "Traceback" not in err


def test_a_port_that_is_taken(capsys, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, out, err = call(capsys, "studio", tmp_path, "--no-open", "--port", port)
    assert (status, out) == (1, "")
    assert f"port {port} of 127.0.0.1 cannot be used" in err
    assert "--port 0" in err


def test_without_the_extra(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorefield.cli.studio, "find_spec", lambda name: None)
    status, _, err = call(capsys, "studio")
    assert status == 1
    assert err.count("\n") == 1
    assert "pip install 'scorefield[studio]'" in err
