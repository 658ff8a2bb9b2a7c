"""Files that others have made: anything but a regular file of bounded size is refused in one sentence, at once."""

import contextlib
import os
import resource
import socket

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import scorefield as sf
from scorefield.runtime.errors import InputError, ScorefieldError
from scorefield.runtime.reading import (
    MissingFile,
    TooManyFiles,
    as_path,
    open_file,
    read_bytes,
    read_json,
    read_text,
    read_toml,
    reading,
)
from scorefield.runtime.weights import TensorFile, read_tensors
from scorefield.training import checkpoint


def refusal(read, *arguments, **keywords):
    """What a reader says; one line, whatever it was given."""
    with pytest.raises(InputError) as caught:
        read(*arguments, **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_regular_file_is_read_whole(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"ε": [1, 2.5, null]}', encoding="utf-8")
    assert read_bytes(path, "a table") == path.read_bytes()
    assert read_text(path, "a table") == '{"ε": [1, 2.5, null]}'
    assert read_json(path, "a table") == {"ε": [1, 2.5, None]}
    with open_file(path, "a table") as file:
        assert file.read(2) == b'{"'
        assert not os.get_inheritable(file.fileno())
    assert file.closed
    path.write_text("a = 1\n[b]\nc = 'd'")
    assert read_toml(str(path), "a table") == {"a": 1, "b": {"c": "d"}}


def test_anything_but_a_regular_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "socket"))
    for name, kind in (("pipe", "named pipe"), ("folder", "folder"), ("link", "named pipe"), ("socket", "")):
        said = refusal(read_json, tmp_path / name, "a manifest")
        assert name in said
        assert kind in said
        assert "expected a manifest" in said
    listening.close()
    for device in ("/dev/zero", "/dev/null"):
        assert "this is a device" in refusal(read_bytes, device, "a manifest")


def test_links_are_followed_only_where_that_is_wanted(tmp_path):
    (tmp_path / "own").write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "own")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    assert read_json(tmp_path / "link", "a manifest") == {}
    assert "symbolic link" in refusal(read_json, tmp_path / "link", "a manifest", follow=False)
    assert "symbolic link" in refusal(read_json, tmp_path / "dangling", "a manifest", follow=False)
    assert "no such file" in refusal(read_json, tmp_path / "dangling", "a manifest")
    assert "cannot be opened" in refusal(read_json, tmp_path / "self", "a manifest")


def test_missing_and_forbidden_files_are_told_apart(tmp_path):
    with pytest.raises(MissingFile, match="there is no such file; expected a recipe"):
        read_toml(tmp_path / "missing.toml", "a recipe")
    (tmp_path / "file").write_text("")
    assert "cannot be opened (Not a directory)" in refusal(read_text, tmp_path / "file" / "x", "a recipe")
    assert "cannot be opened" in refusal(read_text, "a\0b", "a recipe")
    assert "cannot be opened" in refusal(read_text, "a" * 5000, "a recipe")


def test_a_file_without_permission_is_refused(tmp_path, monkeypatch):
    def forbidden(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", forbidden)  # the tests may run as root, who may read everything
    assert "cannot be opened (Permission denied)" in refusal(read_text, tmp_path / "a", "a recipe")


def test_size_is_bounded_before_and_while_reading(tmp_path):
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(2**40)  # sparse: a terabyte that takes no space
    assert "1,099,511,627,776 bytes" in refusal(read_text, path, "a recipe")
    path.write_bytes(b"12345")
    assert read_bytes(path, "five bytes", at_most=5) == b"12345"
    assert "expected a word, of at most 4 bytes" in refusal(read_bytes, path, "a word", at_most=4)
    if os.path.exists("/proc/self/status"):  # says that it has 0 bytes
        assert "of at most 10 bytes" in refusal(read_bytes, "/proc/self/status", "a word", at_most=10)


def test_the_mark_that_editors_put_before_a_text_is_no_part_of_it(tmp_path):
    (tmp_path / "text").write_bytes(b"\xef\xbb\xbfa = 1\n")
    assert read_toml(tmp_path / "text", "a recipe") == {"a": 1}
    (tmp_path / "text").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "text", "a table") == {"a": 1}
    (tmp_path / "text").write_bytes(b"\xef\xbb\xbf\xff")
    assert "not text in UTF-8" in refusal(read_text, tmp_path / "text", "a text")


@pytest.mark.parametrize(
    ("read", "content", "reason"),
    [
        (read_text, b"abc\xff", "not text in UTF-8: byte 3"),
        (read_json, b"[" * 20_000, "nested too deeply"),
        (read_json, b'{"a":' * 20_000, "nested too deeply"),
        (read_toml, b"a = " + b"[" * 20_000, "nested too deeply"),
        (read_json, b"9" * 5_000, "integer of thousands of digits"),
        (read_toml, b"a = " + b"9" * 5_000, "integer of thousands of digits"),
        (read_json, b"{", "line 1"),
        (read_json, b"", "line 1"),
        (read_toml, b"a", "at end of document"),
        (read_toml, b"a = 2020-99-99", "cannot be read"),
        (read_toml, b"a = 1\na = 2\n", "at line 2"),
    ],
)
def test_text_of_another_kind_is_refused(tmp_path, read, content, reason):
    (tmp_path / "text").write_bytes(content)
    said = refusal(read, tmp_path / "text", "a table")
    assert said.startswith(str(tmp_path / "text"))
    assert reason in said
    assert len(said) < 600


@pytest.mark.parametrize(
    "text",
    [".".join("a" * 1_000_000), "x = 1\n[" + " . ".join(['"b c"'] * 200) + "]", "a = {b" + ".'c'" * 300],
)
def test_a_key_of_a_million_parts_is_refused_at_once(tmp_path, text):
    """It would be parsed for hours; tables that recipes have are far from the bound."""
    (tmp_path / "text").write_text(text)
    assert "a key of more than 100 parts (at line" in refusal(read_toml, tmp_path / "text", "a recipe")


def test_many_words_numbers_and_tables_are_no_long_key(tmp_path):
    betas = ", ".join(["0.0125", "-1.5e-3"] * 2_000)
    names = ", ".join(['"a.b"'] * 1_000)
    text = f"a.b.c = [{betas}]\nwords = '{'x' * 10**6}'\nnames = [{names}]\n"
    (tmp_path / "text").write_text(text + "\n".join(f"[t{k}.u]\nx = 1" for k in range(1_000)))
    found = read_toml(tmp_path / "text", "a recipe")
    assert len(found["a"]["b"]["c"]) == 4_000
    assert len(found) == 1_003


@pytest.mark.parametrize(
    "fail",
    [
        lambda: {}["name"],
        lambda: 1 // 0,
        lambda: float(10**400),
        lambda: b"\xff".decode(),
        lambda: np.empty(2**62, dtype=np.uint8),
        lambda: np.frombuffer(b"123", dtype=np.int64),
        lambda: (_ for _ in ()).throw(MemoryError()),
        lambda: (_ for _ in ()).throw(RuntimeError("a\nb\n" * 1_000_000)),
        lambda: next(iter([])),
    ],
)
def test_every_failure_of_the_guarded_code_is_one_line(fail):
    with (
        pytest.raises(InputError, match=r"^the header of x: cannot be read \(.") as caught,
        reading("the header of x"),
    ):
        fail()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_errors_of_this_library_and_interruptions_pass_the_guard():
    own = ScorefieldError("its own words")
    with pytest.raises(ScorefieldError) as caught, reading("x"):
        raise own
    assert caught.value is own
    with pytest.raises(KeyboardInterrupt), reading("x"):
        raise KeyboardInterrupt


@pytest.fixture
def no_descriptors(monkeypatch):
    """Called, it leaves the process none to open a file with."""
    taken: list[int] = []
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    def take() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, before[0]), before[1]))
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))

    yield take
    for descriptor in taken:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_file_is_not_called_damaged_where_too_many_are_open(tmp_path, no_descriptors):
    """Pictures, weights, checkpoints and texts: readers that do without damaged files do not take them for such."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(4):
        Image.fromarray(np.full((8, 8), i, np.uint8)).save(pictures / f"{i}.png")
    weights = tmp_path / "weights.safetensors"
    save_file({"a": torch.zeros(2)}, weights)
    checkpoint.save(tmp_path / "checkpoints", 1, {"ema": {"a": torch.zeros(2)}}, {"step": 1})
    (tmp_path / "text").write_text("text")
    lazy = sf.data.folder(pictures, size=8, on_demand=True, probe=1)
    opened = open(weights, "rb")  # noqa: SIM115  (closed, it would leave a descriptor)
    no_descriptors()
    for read in (
        lambda: TensorFile(opened, weights),
        lambda: read_text(tmp_path / "text", "a text"),
        lambda: read_tensors(weights, "weights"),
        lambda: checkpoint.newest(tmp_path / "checkpoints"),
        lambda: lazy.batch(torch.arange(4)),
    ):
        with pytest.raises(TooManyFiles, match="too many files are open"):
            read()
    opened.close()


@pytest.mark.parametrize("path", [None, 3, b"name", [], "\0", "a\ud800"])
def test_what_is_no_path_is_refused(path):
    with pytest.raises(InputError, match="a run is named by its path"):
        as_path(path, "a run")


def test_a_path_may_begin_at_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert str(as_path("~/runs", "a run")) == "/home/someone/runs"


@pytest.mark.parametrize("name", ["x" * 5000, "a/" * 3000, "a\0b", "\ud800"])
def test_a_name_that_no_file_can_have_is_refused(name):
    with pytest.raises(InputError, match="a run is named by its path, and no file can have "):
        as_path(name, "a run")
