"""Edits of the files that a case meets, each a small table that a corpus can hold.

Every edit has `do` and, but for "python", `file`:
    write (text or hex), append, flip (at, bit), cut (to), delete, double (the whole content twice), swap (old, new)
    fifo, link (to), folder, sparse (size), mode (mode)
    value (at, raw): of a .toml or .json file, the entry at a path of names and numbers becomes the text `raw`
    drop (at), line (at: number of a line, raw), header (at, raw): of the table at the head of a .safetensors file
    python (code): `work` is the folder; np, torch and sf are there
"""

import json
import os
import shutil
import struct
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tomli_w

__all__ = ["apply"]

_MARK = "@raw@"


def apply(work: Path, edit: Mapping[str, object]) -> None:
    do = str(edit["do"])
    if do == "python":
        import numpy as np
        import torch

        before = Path.cwd()
        os.chdir(work)
        try:
            exec(str(edit["code"]), {"np": np, "torch": torch, "work": work, "Path": Path})
        finally:
            os.chdir(before)
        return
    path = work / str(edit["file"])
    _DO[do](path, edit)


def _gone(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)


def _write(path: Path, edit: Mapping[str, Any]) -> None:
    _gone(path)
    path.write_bytes(
        bytes.fromhex(edit["hex"]) if "hex" in edit else edit["text"].encode(errors="surrogateescape")
    )


def _append(path: Path, edit: Mapping[str, Any]) -> None:
    with open(path, "ab") as file:
        file.write(edit["text"].encode(errors="surrogateescape"))


def _flip(path: Path, edit: Mapping[str, Any]) -> None:
    content = bytearray(path.read_bytes())
    if content:
        content[edit["at"] % len(content)] ^= 1 << edit["bit"]
    path.write_bytes(bytes(content))


def _cut(path: Path, edit: Mapping[str, Any]) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: round(len(content) * edit["to"])])


def _double(path: Path, edit: Mapping[str, Any]) -> None:
    path.write_bytes(path.read_bytes() * 2)


def _swap(path: Path, edit: Mapping[str, Any]) -> None:
    path.write_bytes(path.read_bytes().replace(edit["old"].encode(), edit["new"].encode(), 1))


def _fifo(path: Path, edit: Mapping[str, Any]) -> None:
    _gone(path)
    os.mkfifo(path)


def _link(path: Path, edit: Mapping[str, Any]) -> None:
    _gone(path)
    path.symlink_to(edit["to"])


def _folder(path: Path, edit: Mapping[str, Any]) -> None:
    _gone(path)
    path.mkdir()


def _sparse(path: Path, edit: Mapping[str, Any]) -> None:
    with open(path, "ab") as file:
        file.truncate(edit["size"])


def _mode(path: Path, edit: Mapping[str, Any]) -> None:
    path.chmod(edit["mode"])


def _parse(path: Path) -> Any:
    text = path.read_text()
    return tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)


def _dump(path: Path, value: Any, raw: str) -> None:
    text = tomli_w.dumps(value) if path.suffix == ".toml" else json.dumps(value)
    path.write_bytes(text.replace(f'"{_MARK}"', raw).encode(errors="surrogateescape"))


def _place(value: Any, at: list[Any]) -> tuple[Any, Any]:
    for name in at[:-1]:
        value = value.setdefault(name, {}) if isinstance(value, dict) else value[int(name) % len(value)]
    return value, at[-1]


def _value(path: Path, edit: Mapping[str, Any]) -> None:
    whole = _parse(path)
    holder, name = _place(whole, edit["at"])
    holder[name] = _MARK
    _dump(path, whole, edit["raw"])


def _drop(path: Path, edit: Mapping[str, Any]) -> None:
    whole = _parse(path)
    holder, name = _place(whole, edit["at"])
    del holder[name]
    _dump(path, whole, "")


def _line(path: Path, edit: Mapping[str, Any]) -> None:
    lines = path.read_bytes().split(b"\n")
    lines[edit["at"] % len(lines)] = edit["raw"].encode(errors="surrogateescape")
    path.write_bytes(b"\n".join(lines))


def _header(path: Path, edit: Mapping[str, Any]) -> None:
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    holder, name = _place(header, edit["at"])
    holder[name] = _MARK
    text = json.dumps(header).replace(f'"{_MARK}"', edit["raw"]).encode(errors="surrogateescape")
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


_DO: dict[str, Callable[[Path, Mapping[str, Any]], None]] = {
    "write": _write,
    "append": _append,
    "flip": _flip,
    "cut": _cut,
    "delete": lambda path, edit: _gone(path),
    "double": _double,
    "swap": _swap,
    "fifo": _fifo,
    "link": _link,
    "folder": _folder,
    "sparse": _sparse,
    "mode": _mode,
    "value": _value,
    "drop": _drop,
    "line": _line,
    "header": _header,
}
