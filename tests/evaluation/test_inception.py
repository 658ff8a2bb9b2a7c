"""The FID Inception-v3 against another implementation's features; its file's names, and files that are
something else.
"""

import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support import Golden, assert_close, pattern

from scorefield.core.shapes import DataSpec
from scorefield.evaluation import inception_features
from scorefield.evaluation.inception import InceptionV3
from scorefield.runtime.errors import InputError


def weights(tensors):
    """A float32 state dict of these (name, shape), uniform, of a size that keeps activations in bounds, from
    integers alone.
    """
    found = {}
    for number, (name, shape) in enumerate(tensors):
        words = np.random.Philox(key=number).random_raw(math.prod(shape))
        u = torch.from_numpy((words >> 40).astype(np.float32) * 2.0**-24).reshape(shape)
        if len(shape) > 1:
            found[name] = (u - 0.5) * math.sqrt(24 / math.prod(shape[1:]))
        elif name.endswith(("bn.weight", "running_var")):
            found[name] = u + 0.5
        else:
            found[name] = (u - 0.5) * 0.2
    return found


@pytest.fixture(scope="module")
def golden():
    return Golden("inception_v3_fid")


def test_equals_the_published_implementation(golden, tmp_path):
    """Names, shapes and every operation, from the image to the pooled features and the logits without their
    bias.
    """
    # [Szegedy et al. 2016 Table 1; Heusel et al. 2017; Salimans et al. 2016]
    file = tmp_path / "weights.safetensors"
    save_file(weights(golden.config["tensors"]), file)
    spec = DataSpec((3, 40, 56), range=(-1.0, 1.0), bins=256)
    extract = inception_features(file, spec)
    image = pattern(1, 40, 56)
    seen = extract(2 * image - 1)
    assert_close(seen.features, golden["features"], 1e-5, "features")
    assert_close(seen.log_probs, golden["logits"].log_softmax(dim=1), 1e-5, "log_probs")
    assert extract.dimension == seen.features.shape[1] == 2048
    assert seen.log_probs.shape == (1, 1008)
    assert extract.name.startswith("FID Inception-v3, weights ")


def test_size(golden):
    """23,850,960 parameters: torchvision documents 27,161,264 for 1,000 classes, of which 3,326,696 are the
    auxiliary head's.
    """
    with torch.device("meta"):
        net = InceptionV3()
    assert sum(p.numel() for p in net.parameters()) == 27_161_264 - 3_326_696 + 8 * 2049
    own = [
        [name, list(p.shape)]
        for name, p in net.state_dict().items()
        if not name.endswith("num_batches_tracked")
    ]
    assert own == golden.config["tensors"]


def flat(tensors, **changed):
    """Zeros of these shapes that take no room in a file."""
    return {
        name: torch.zeros(1).expand(changed.get(name.replace(".", "_"), shape)) for name, shape in tensors
    }


def test_torch_files(golden, tmp_path):
    """With the counters that torch adds to a state dict; half precision becomes float32."""
    file = tmp_path / "weights.pth"
    counters = {"Conv2d_1a_3x3.bn.num_batches_tracked": torch.tensor(3)}
    torch.save(
        {name: value.half() for name, value in flat(golden.config["tensors"]).items()} | counters, file
    )
    net = inception_features(file, DataSpec((1, 8, 8)))._net
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert not any(p.is_meta or p.requires_grad for p in net.parameters())
    assert not any(b.is_meta for b in net.buffers())
    assert not net.training
    with pytest.raises(InputError, match="images of 1 or 3 channels"):
        inception_features(file, DataSpec((2,)))


def test_other_files(golden, tmp_path):
    spec, tensors = DataSpec((3, 8, 8)), golden.config["tensors"]
    download = "download pt_inception-2015-12-05-6726825d.pth"
    with pytest.raises(InputError, match=f"there is no such file.*{download}"):
        inception_features(tmp_path / "none.pth", spec)
    with pytest.raises(InputError, match=f"this is a folder.*{download}"):
        inception_features(tmp_path, spec)

    def refused(name, message, content=None, raw=None):
        file = tmp_path / name
        if raw is not None:
            file.write_bytes(raw)
        elif name.endswith(".safetensors"):
            save_file(content, file)
        else:
            torch.save(content, file)
        with pytest.raises(InputError, match=f"{name}:? {message}.*{download}") as error:
            inception_features(file, spec)
        assert "\n" not in str(error.value)

    refused("text.pth", "is damaged", raw=b"<html>not found</html>")
    refused("text.safetensors", "is damaged, cut off or no .safetensors", raw=b"<html>not found</html>")
    refused("empty.pth", "is damaged", raw=b"")
    refused("code.pth", "was refused: loading it would run", content={"a": InputError("runs when unpickled")})
    refused("nested.pth", "holds no state dict", content={"state_dict": flat(tensors[:2])})
    refused("numbers.pth", "holds no state dict", content={1: torch.zeros(2)})
    refused("list.pth", "holds no state dict", content=[torch.zeros(2)])
    refused(
        "other.safetensors",
        r"[0-9]+ tensors are missing \(Conv2d_1a_3x3.conv.weight,",
        content={"a": torch.zeros(2)},
    )
    refused(
        "torchvision.pth",
        r"1 tensor is of another shape \(fc.weight: \[1000, 2048\] instead of",
        content=flat(tensors, fc_weight=(1000, 2048)),
    )
    refused(
        "more.pth",
        r"1 tensor is unknown \(AuxLogits.fc.bias\)",
        content=flat([*tensors, ["AuxLogits.fc.bias", [1]]]),
    )
