"""The golden files are those that the originals made: sums, metadata, the two precisions, and a README that
covers them.
"""

import hashlib
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

GOLDEN = Path(__file__).parent / "golden"
README = (GOLDEN / "README.md").read_text()
FILES = sorted(GOLDEN.glob("*.safetensors"))
CASES = [file for file in FILES if re.match("[A-G][0-9_]", file.name)]
REPOSITORIES = dict(re.findall(r"^\| (\w+/\S+) \| ([0-9a-f]{40}) \|", README, flags=re.MULTILINE))


def test_the_sums_are_those_of_the_files():
    lines = (GOLDEN / "sha256sums.txt").read_text().splitlines()
    known = {name: sha256 for sha256, name in (line.split() for line in lines)}
    files = [*FILES, GOLDEN / "checkpoints.json"]
    assert {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files} == known


@pytest.mark.parametrize("file", CASES, ids=lambda file: file.stem)
def test_a_case(file):
    with safe_open(file, "pt") as opened:
        metadata, names = opened.metadata(), list(opened.keys())
        tensors = {name: opened.get_tensor(name) for name in names}
    assert metadata["case"] == file.stem
    assert metadata["title"]
    assert json.loads(metadata["config"]) is not None
    assert set(metadata["source"].split("; ")) <= set(REPOSITORIES)
    assert {name.split(".")[0] for name in names} <= {"in", "param", "state_dict", "out", "out64"}
    assert any(name.startswith("out.") for name in names)
    for name, twin in tensors.items():
        if name.startswith("out64."):
            original = tensors[name.replace("out64.", "out.", 1)]
            assert (twin.dtype, original.dtype) == (torch.float64, torch.float32)
            assert twin.shape == original.shape
            assert twin.isfinite().all() == original.isfinite().all()


def test_the_readme_covers_every_family_and_every_citation():
    assert len(REPOSITORIES) == 5
    families = set(re.findall(r"^\| ([A-G]) \|", README, flags=re.MULTILINE))
    assert families == {file.name[0] for file in CASES}
    assert all(f"`{file.stem}`" in README for file in FILES if file not in CASES)
    items = re.findall(r"^(\d+)\. ", README, flags=re.MULTILINE)
    assert items == [str(n) for n in range(1, len(items) + 1)]
    tests = "\n".join(file.read_text() for file in Path(__file__).parent.rglob("*.py"))
    assert set(re.findall(r"golden item (\d+)", tests)) <= set(items)
