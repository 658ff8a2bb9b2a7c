"""The README's Python example runs as it stands, but for the number of steps."""

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def test_python_example(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert "steps=500" in code
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(code.replace("steps=500", "steps=2"), "README.md", "exec"), names)
    assert names["images"].shape == (10, 1, 8, 8)
    assert (tmp_path / "runs" / "mine" / "model.safetensors").exists()


def test_files_named_in_the_documents_exist():
    assert "@@" not in (ROOT / "README.md").read_text()
    package = ROOT / "src" / "scorefield"
    rooms = "|".join(sorted(path.name for path in package.iterdir() if path.is_dir()))
    documents = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"]
    documents += [
        str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts
    ]
    for document in documents:
        text = (ROOT / document).read_text()
        for path in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert ((ROOT / document).parent / path).exists(), (
                f"{document} points to {path}, which is not there"
            )
        for path in re.findall(rf"`((?:{rooms})/[a-z_/0-9]+\.py)`", text):
            assert (package / path).exists(), f"{document} names {path}"
        for path in re.findall(r"`((?:tests|benchmarks|examples)/[a-z_/]+(?:\.py)?)`", text):
            assert (ROOT / path).exists(), f"{document} names {path}, which is not there"
