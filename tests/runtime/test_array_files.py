"""Archives of arrays: what they say is compared with their size and with free memory before anything is loaded."""

import io
import os
import zipfile

import numpy as np
import pytest

from scorefield.runtime import free_memory
from scorefield.runtime.array_files import array_headers, read_arrays
from scorefield.runtime.errors import InputError


def archive(path, compression=zipfile.ZIP_STORED, **contents):
    """An .npz of these files, whatever they hold."""
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in contents.items():
            file.writestr(f"{name}.npy", content)
    return path


def npy(shape, dtype="<f4", content=b""):
    """The bytes of an .npy that says this shape and type, whatever it holds."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"shape": shape, "fortran_order": False, "descr": dtype})
    return file.getvalue() + content


def read(path, *names):
    return read_arrays(path, "the file", names, names, "make it again")


def test_the_named_arrays_are_read(tmp_path):
    path = tmp_path / "a.npz"
    given: dict[str, np.ndarray] = {
        "x": np.arange(6, dtype=np.int16).reshape(2, 3),
        "y": np.asfortranarray(np.eye(3)),
        "z": np.array("é"),
    }
    np.savez_compressed(path, allow_pickle=False, **given)
    for name, array in read(path, *given).items():
        np.testing.assert_array_equal(array, given[name])
        assert array.dtype == given[name].dtype
    headers = array_headers(path, "the file")
    assert {name: header.shape for name, header in headers.items()} == {"x": (2, 3), "y": (3, 3), "z": ()}
    assert {name: header.nbytes for name, header in headers.items()} == {"x": 12, "y": 72, "z": 4}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (npy((10**12, 3)), "is damaged: float32 .* needs 12,000,000,000,000 bytes, and the archive holds 0"),
        (npy((10**40,)), "is damaged"),
        (npy((-1,)), "is damaged"),
        (npy((10**12,), "<U0"), "is damaged"),
        (npy((4,), content=b"123"), "needs 16 bytes, and the archive holds 3"),
        (npy((1,), "|O", b"cos\nsystem\n."), "object arrays are never loaded"),
        (b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65_535, "cannot be read"),
        (b"no array at all", "cannot be read"),
        (b"", "cannot be read"),
    ],
)
def test_an_array_that_is_not_what_it_says_is_refused_before_it_is_loaded(tmp_path, content, reason):
    with pytest.raises(InputError, match=f"^the file: .*{reason}") as caught:
        read(archive(tmp_path / "a.npz", x=content), "x")
    assert "\n" not in str(caught.value)


def test_an_archive_that_needs_more_memory_than_is_free_is_refused(tmp_path, monkeypatch):
    """10 kB of file for 10 MB of zeros: so does one of 9 GB, which would fill memory."""
    monkeypatch.setattr(free_memory, "free_memory", lambda: 10_000_000)
    path = archive(
        tmp_path / "a.npz",
        zipfile.ZIP_DEFLATED,
        small=npy((10**6,), content=bytes(4 * 10**6)),
        large=npy((2, 10**6), content=bytes(8 * 10**6)),
    )
    assert os.path.getsize(path) < 20_000
    assert read(path, "large")["large"].shape == (2, 10**6)
    with pytest.raises(InputError, match=r"the file: this needs 0\.0 GB of memory, and 0\.0 GB are free"):
        read(path, "small", "large")  # together


def test_headers_are_checked_before_anything_is_loaded(tmp_path, monkeypatch):
    def check(headers):
        raise InputError(f"x is {headers['x'].shape}")

    monkeypatch.setattr(np.lib.format, "read_array", lambda *_: pytest.fail("an array was loaded"))
    path = archive(tmp_path / "a.npz", x=npy((2,), content=bytes(8)))
    with pytest.raises(InputError, match=r"x is \(2,\)"):
        read_arrays(path, "the file", ["x"], ["x"], "", check)


def test_free_memory_is_within_the_limit_of_the_process(monkeypatch):
    resource = pytest.importorskip("resource")
    assert 0 < free_memory.free_memory() < 2**50
    used = free_memory.system_bytes("/proc/self/status", "VmSize")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (used + 10**6, used + 10**6))
    assert free_memory.free_memory() <= 2 * 10**6
