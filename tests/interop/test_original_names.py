"""Networks built from the original constructors' names and arguments."""

import pytest
import torch

from scorefield.interop import ddpm, guided_diffusion, improved_diffusion, ncsn
from scorefield.runtime.errors import InputError

UNET = {
    "in_channels": 3,
    "model_channels": 32,
    "out_channels": 6,
    "num_res_blocks": 1,
    "attention_resolutions": [2, 16],
    "channel_mult": [1, 1],
}
MODEL = {
    "ch": 32,
    "out_ch": 3,
    "in_channels": 3,
    "ch_mult": [1, 2, 2],
    "num_res_blocks": 1,
    "attn_resolutions": [14],
    "image_size": 28,
}


def test_defaults_are_those_of_the_original() -> None:
    spec = guided_diffusion.network("UNetModel", UNET).config
    assert spec["heads"] == 1
    assert spec["scale_shift"] is False
    assert spec["attention_order"] == "legacy"
    assert "head_channels" not in spec
    assert "heads_upsample" not in spec
    assert spec["num_classes"] == 0


def test_attention_at_factors_without_a_level_is_ignored_as_in_the_original() -> None:
    assert guided_diffusion.network("UNetModel", UNET).config["attention"] == [2]


def test_improved_diffusion_is_the_same_network_with_fewer_arguments() -> None:
    names = [
        set(module.network("UNetModel", UNET).state_dict())
        for module in (guided_diffusion, improved_diffusion)
    ]
    assert names[0] == names[1]
    with pytest.raises(InputError, match="no argument 'resblock_updown'"):
        improved_diffusion.network("UNetModel", UNET | {"resblock_updown": True})


def test_attention_in_pixels_becomes_a_factor() -> None:
    net = ddpm.network("Model", MODEL)
    assert net.config["attention"] == [2]
    assert any(name.startswith("down.1.attn.0") for name in net.state_dict())


def test_logit_transform_leaves_the_input_alone() -> None:
    arguments = {"channels": 1, "ngf": 4, "num_classes": 3, "image_size": 8}
    assert ncsn.network("CondRefineNetDilated", arguments).config["unit_input"] is True
    assert (
        ncsn.network("CondRefineNetDilated", arguments | {"logit_transform": True}).config["unit_input"]
        is False
    )


@pytest.mark.parametrize(
    ("module", "kind", "arguments", "message"),
    [
        (guided_diffusion, "UNetModle", UNET, "did you mean 'UNetModel'"),
        (guided_diffusion, "Transformer", UNET, "allowed are UNetModel, SuperResModel, EncoderUNetModel"),
        (guided_diffusion, "SuperResModel", UNET | {"low_res": True}, "no argument 'low_res'"),
        (guided_diffusion, "EncoderUNetModel", UNET, "needs image_size"),
        (guided_diffusion, "EncoderUNetModel", UNET | {"image_size": 8, "dims": 1}, "dims=2"),
        (guided_diffusion, "UNetModel", UNET | {"num_head": 2}, "dropout.*did you mean 'num_heads'"),
        (guided_diffusion, "UNetModel", {"in_channels": 3}, "needs model_channels, out_channels"),
        (guided_diffusion, "UNetModel", UNET | {"dims": 3}, "dims=2"),
        (ddpm, "Model", MODEL | {"chanels": 2}, "no argument 'chanels'"),
        (ncsn, "CondRefineNet", {}, "did you mean 'CondRefineNetDilated'"),
    ],
)
def test_unknown_names_are_refused(module, kind: str, arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        module.network(kind, arguments)


def test_defaults_of_the_classifier_are_those_of_the_original() -> None:
    spec = guided_diffusion.network("EncoderUNetModel", UNET | {"image_size": 8}).config
    assert (spec["pool"], spec["scale_shift"], spec["updown"], spec["heads"]) == ("adaptive", False, False, 1)
    assert spec["num_classes"] == 6


@pytest.mark.parametrize("module", [guided_diffusion, improved_diffusion])
def test_super_resolution_reads_twice_the_channels(module) -> None:
    net = module.network("SuperResModel", UNET)
    assert net.config["low_res"] is True
    assert net.input_blocks[0][0].in_channels == 6


def test_an_open_label_count_is_the_original_s() -> None:
    with torch.device("meta"):
        net = guided_diffusion.network("UNetModel", UNET | {"num_classes": 1000})
    assert net.label_emb.num_embeddings == 1000
