"""`load` of every origin: golden networks by the scripts' flags, processes against golden tables, wrong flags
by their names.
"""

import pytest
import torch
from support import Golden, relative_error
from torch import Tensor

import scorefield as sf
from scorefield.interop import ddpm, guided_diffusion, improved_diffusion, ncsn
from scorefield.interop.flags import parse_flags
from scorefield.runtime.errors import InputError
from scorefield.runtime.registry import GRIDS

# The golden cases' constructor arguments as the scripts' flags.
C01 = {
    "image_size": 16,
    "num_channels": "32",
    "channel_mult": "1,2,1",
    "num_res_blocks": 1,
    "attention_resolutions": "8,4",
    "num_heads": 2,
    "class_cond": "True",
    "learn_sigma": True,
}
C02 = {
    "image_size": 16,
    "num_channels": 32,
    "channel_mult": "2,1",
    "num_res_blocks": 1,
    "attention_resolutions": "8",
    "num_head_channels": 16,
    "resblock_updown": "true",
    "use_new_attention_order": True,
    "use_scale_shift_norm": "False",
}
C10 = {
    "large_size": 16,
    "small_size": 8,
    "num_channels": 32,
    "channel_mult": "1,1",
    "num_res_blocks": 1,
    "attention_resolutions": "8",
    "num_heads": 2,
}
C11 = {
    "data": {"image_size": 8, "channels": 1},
    "model": {"ngf": 8, "num_classes": 10, "sigma_begin": 1, "sigma_end": "0.01"},
}
C12 = {"image_size": 8, "model": {"ch": 32, "ch_mult": "2,1", "num_res_blocks": 1, "attn_resolutions": [4]}}
CASES = {
    "C01_unet_guided_0": (guided_diffusion, C01),
    "C02_unet_guided_1": (guided_diffusion, C02),
    "C10_superres": (guided_diffusion, C10),
    "C11_cond_refinenet_dilated": (ncsn, C11),
    "C12_unet_ddim": (ddpm, C12),
}


def state_of(golden: Golden) -> dict[str, Tensor]:
    return {name.removeprefix("state_dict."): golden[name] for name in golden.names("state_dict.")}


def random_state(original, seed: int = 0) -> dict[str, Tensor]:
    """Weights of the names and shapes that flags describe."""
    generator = torch.Generator().manual_seed(seed)
    state = original.model.net.state_dict()
    return {name: 0.1 * torch.randn(value.shape, generator=generator) for name, value in state.items()}


@pytest.mark.parametrize("case", CASES)
def test_flags_make_the_golden_network(case: str) -> None:
    """The denoiser's prediction is the stored output at the same noise input, in float64 to 1e-9."""
    golden, (module, flags) = Golden(case), CASES[case]
    model = module.load(state_of(golden), flags)
    assert not model.training
    model = model.double()
    x = golden["in.x"].double()
    if case.startswith("C11"):
        output = model(x, model.process.T - golden["in.y"]).raw  # the paper's rank, counted from the noisiest
    elif "superres" in case:
        output = model.given(low_res=golden["in.low_res"])(x, golden["in.t"] + 1).raw
    else:
        y = golden.tensors.get("in.y")
        output = model(x, golden["in.t"] + 1, *([] if y is None else [y])).raw
    assert relative_error(output, golden["out64.output"][:, : output.shape[1]]) < 1e-9


def test_labels_and_variance_of_a_golden_network() -> None:
    golden = Golden("C01_unet_guided_0")
    model = guided_diffusion.load(state_of(golden), C01).double()
    assert model.num_classes == model.data.num_classes == 10  # read off the label table
    pred = model(golden["in.x"].double(), golden["in.t"] + 1, golden["in.y"])
    head = golden["out64.output"][:, 3:]
    assert relative_error(pred.var_frac, (head + 1) / 2) < 1e-9  # golden README §4, 3


def test_a_classifier_by_its_flags() -> None:
    """On the constructor's own network, with the scripts' 64 channels a head; its noise input is the
    published 0-based step.
    """
    flags = {
        "image_size": 64,
        "classifier_width": 64,
        "classifier_depth": "1",
        "classifier_attention_resolutions": "8",
    }
    flags |= {"noise_schedule": "cosine"}
    state = random_state(guided_diffusion.describe_classifier(flags, {"out.2.c_proj.weight": (7, 256, 1)}))
    model = guided_diffusion.load_classifier(state, flags).double()
    net = guided_diffusion.network(
        "EncoderUNetModel",
        {
            "image_size": 64,
            "in_channels": 3,
            "model_channels": 64,
            "out_channels": 7,
            "num_res_blocks": 1,
            "attention_resolutions": [8],
            "channel_mult": [1, 2, 3, 4],
            "num_head_channels": 64,
            "use_scale_shift_norm": True,
            "resblock_updown": True,
            "pool": "attention",
        },
    )
    net.load_state_dict(state, strict=True)
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(model(x, 300), net.double()(x, torch.tensor([299.0])))
    assert model.num_classes == 7
    assert model.process.config["kind"] == "cosine"


def test_improved_diffusion_by_its_flags() -> None:
    """As guided-diffusion's legacy order; c = 1000 (t − 1)/T, which is rescale_timesteps, by default there
    and not here.
    """
    common = {
        "image_size": 32,
        "num_channels": 32,
        "num_res_blocks": 1,
        "diffusion_steps": 50,
        "attention_resolutions": "16",
    }
    state = random_state(improved_diffusion.describe(common, {}))
    ours = improved_diffusion.load(state, common)
    theirs = guided_diffusion.load(state, common | {"channel_mult": "1,2,2,2"})
    assert (ours.noise_input, theirs.noise_input) == ("scaled", "index")
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(x, 11).raw, theirs.net(x, torch.tensor([200.0])))
    torch.testing.assert_close(theirs(x, 11).raw, theirs.net(x, torch.tensor([10.0])))
    plain = improved_diffusion.load(state, common | {"rescale_timesteps": "false", "predict_xstart": "true"})
    assert (plain.noise_input, plain.parametrization) == ("index", "x0")
    torch.testing.assert_close(plain(x, 11).x0, theirs(x, 11).raw)


@pytest.mark.parametrize("case", ["linear_T1000", "linear_T4000", "cosine_T4000", "cosine_T1000"])
def test_the_process_is_the_original_s(case: str) -> None:
    golden, (schedule, T) = Golden(f"A_schedule_{case}"), case.split("_T")
    flags = {"noise_schedule": schedule, "diffusion_steps": T, "image_size": 32}
    process = improved_diffusion.describe(flags, {}).model.process
    alpha = process.level(torch.arange(1, int(T) + 1)).alpha
    assert relative_error(alpha**2, golden["out.alphas_cumprod"]) < 1e-12


def test_ddpm_s_schedules_are_the_original_s() -> None:
    golden = Golden("G00_beta_schedules")
    for name in ("linear", "quad", "const", "sigmoid"):
        flags = C12 | {
            "diffusion": {
                "beta_schedule": name,
                "beta_start": 1e-4,
                "beta_end": 0.02,
                "num_diffusion_timesteps": 1000,
            }
        }
        level = ddpm.describe(flags, {}).model.process.level(torch.arange(1, 1001))
        assert relative_error(level.alpha**2, torch.cumprod(1 - golden[f"out.{name}"], 0)) < 1e-12, name
    with pytest.raises(InputError, match="linear, quad, const, sigmoid; got 'jsd'"):
        ddpm.describe(C12 | {"beta_schedule": "jsd"}, {})


def test_ncsn_s_levels_are_the_original_s() -> None:
    original = ncsn.describe(C11, {})
    sigmas = original.model.process.level(torch.arange(10, 0, -1)).sigma
    assert relative_error(sigmas, Golden("E00_sigmas")["out.s0.numpy"]) < 1e-12
    assert original.model.data.range == (0.0, 1.0)
    assert original.sampling["sampler"] == {"kind": "langevin", "step": 4e-5}
    with pytest.raises(InputError, match="logit_transform"):
        ncsn.describe(C11 | {"logit_transform": True}, {})
    with pytest.raises(InputError, match="sigma_begin is missing"):
        ncsn.describe({"image_size": 8, "channels": 1, "ngf": 4, "num_classes": 3, "sigma_end": 0.01}, {})


@pytest.mark.parametrize(
    ("respacing", "expected"),
    [
        ("", ("ancestral", "full", None)),
        ("250", ("ancestral", "250", None)),
        ("10,15,20", ("ancestral", "10,15,20", None)),
        ("ddim25", ("ddim", "leading", 25)),
    ],
)
def test_respacing_becomes_a_grid(respacing: str, expected: tuple) -> None:
    sampling = guided_diffusion.describe({"timestep_respacing": respacing}, {}).sampling
    assert (sampling["sampler"]["kind"], sampling["grid"], sampling.get("steps")) == expected


def test_ddim_respacing_keeps_the_published_steps() -> None:
    """Golden R1: "ddim25" keeps every 40th step of 1,000, from 0."""
    sampling = guided_diffusion.describe({"timestep_respacing": "ddim25"}, {}).sampling
    process = sf.process.from_betas(sf.process.linear_betas(1000))
    grid = GRIDS[sampling["grid"]](process, sampling["steps"])
    assert grid.tolist() == [1 + k for k in range(960, -1, -40)] + [0]
    for wrong in ("ddim300", "ddim", "ddimx"):
        with pytest.raises(InputError, match=f"'{wrong}'.*must divide diffusion_steps = 1000"):
            guided_diffusion.describe({"timestep_respacing": wrong}, {})


def test_an_upsampler_samples() -> None:
    """One DDIM step from T to 0 is the prediction of x_0, clipped here, for the image that is bound."""
    golden = Golden("C10_superres")
    model = guided_diffusion.load(state_of(golden), C10)
    x, small = golden["in.x"], golden["in.low_res"]
    samples = sf.sample(sf.guidance.ClipX0(model.given(low_res=small)), sf.samplers.DDIM(), [1000, 0], x_T=x)
    with (
        torch.no_grad()
    ):  # attention may be another kernel where gradients are recorded, and x̂0 magnifies its rounding
        torch.testing.assert_close(samples, model.given(low_res=small)(x, 1000).x0.clamp(-1, 1))
    assert (
        model.given(low_res=small.flip(-1))(x, 1000).raw - model.given(low_res=small)(x, 1000).raw
    ).abs().max() > 0.01
    with pytest.raises(InputError, match="needs the low-resolution images"):
        model(x, 1000)


def test_an_upsampler_without_sizes_is_known_by_its_input() -> None:
    flags = {name: value for name, value in C10.items() if not name.endswith("_size")}
    model = guided_diffusion.describe(flags, {"input_blocks.0.0.weight": (32, 6, 3, 3)}).model
    assert model.net.config["low_res"] is True  # type: ignore[attr-defined]
    assert model.data.shape == (3, 256, 256)  # the upsampling scripts' default
    with pytest.raises(InputError, match="one or the other"):
        guided_diffusion.describe(flags | {"image_size": 64, "large_size": 256}, {})


def test_the_model_is_made_where_the_weights_are() -> None:
    state = state_of(Golden("C01_unet_guided_0"))
    on_meta = guided_diffusion.load({name: value.to("meta") for name, value in state.items()}, C01)
    assert all(parameter.is_meta for parameter in on_meta.parameters())
    model = guided_diffusion.load(state, C01)
    with torch.no_grad():
        next(model.parameters()).add_(1)
    assert torch.equal(
        state["time_embed.0.weight"], Golden("C01_unet_guided_0")["state_dict.time_embed.0.weight"]
    )


WRONG = [
    ("C01_unet_guided_0", {"num_channels": 64}, "num_channels is 32 in the file but 64 in the flags"),
    ("C01_unet_guided_0", {"channel_mult": "1,2,2"}, "channel_mult is 1,2,1 in the file but 1,2,2 in the flags"),
    ("C01_unet_guided_0", {"channel_mult": "", "image_size": 64}, r"channel_mult is 1,2,1 in the file but 1,2,3,4 \(that of image_size 64\)"),
    ("C01_unet_guided_0", {"num_res_blocks": 2}, "num_res_blocks is 1 in the file but 2 in the flags"),
    ("C01_unet_guided_0", {"learn_sigma": False}, "learn_sigma is true in the file but false in the flags"),
    ("C01_unet_guided_0", {"class_cond": False}, "class_cond is true in the file but false in the flags"),
    ("C01_unet_guided_0", {"use_scale_shift_norm": "0"}, "use_scale_shift_norm is true in the file but false in the flags"),
    ("C01_unet_guided_0", {"resblock_updown": True}, "resblock_updown is false in the file but true in the flags"),
    ("C01_unet_guided_0", {"attention_resolutions": "8"}, "attention_resolutions is 8,4 in the file but 8 in the flags"),
    ("C02_unet_guided_1", {"class_cond": "true", "learn_sigma": "true"}, "class_cond is false.*; learn_sigma is false in the file"),
    ("C10_superres", {"image_size": 16}, "the kind is an upsampler.* in the file but a model of images in the flags"),
    ("C11_cond_refinenet_dilated", {"ngf": 16}, "ngf is 8 in the file but 16 in the flags"),
    ("C11_cond_refinenet_dilated", {"num_classes": 3}, "num_classes is 10 in the file but 3 in the flags"),
    ("C12_unet_ddim", {"ch": 64}, "ch is 32 in the file but 64 in the flags"),
    ("C12_unet_ddim", {"ch_mult": [1, 2]}, "ch_mult is 2,1 in the file but 1,2 in the flags"),
    ("C12_unet_ddim", {"num_res_blocks": 2}, "num_res_blocks is 1 in the file but 2 in the flags"),
    ("C12_unet_ddim", {"attn_resolutions": "8"}, "attn_resolutions is 4 in the file but 8 in the flags"),
    ("C12_unet_ddim", {"resamp_with_conv": "false"}, "resamp_with_conv is true in the file but false in the flags"),
]  # fmt: skip


@pytest.mark.parametrize(("case", "change", "message"), WRONG)
def test_a_wrong_flag_is_named(case: str, change: dict, message: str) -> None:
    module, flags = CASES[case]
    flags = {
        k: v for k, v in flags.items() if not ("image_size" in change and k in ("large_size", "small_size"))
    }
    with pytest.raises(InputError, match=message) as error:
        module.load(state_of(Golden(case)), flags | change)
    assert len(str(error.value)) < 300


def test_weights_of_another_origin_are_known() -> None:
    with pytest.raises(InputError, match="weights of ddpm"):
        guided_diffusion.load(state_of(Golden("C12_unet_ddim")), C01)
    with pytest.raises(
        InputError, match=r"weights of guided-diffusion or improved-diffusion.*a network of ncsn"
    ):
        ncsn.load(state_of(Golden("C01_unet_guided_0")), C11)
    with pytest.raises(InputError, match="the kind is a classifier in the file"):
        guided_diffusion.load(state_of(Golden("C07_encoder_attention")), C01)
    with pytest.raises(InputError, match=r"there is no begin_conv\.weight"):
        ncsn.load({"weight": torch.zeros(1)}, C11)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classifier_width": 128}, "classifier_width is 64 in the file but 128 in the flags"),
        ({"classifier_depth": 2}, "64 × 2, 128 × 2, 192 × 2, 256 × 1 in the file but 64 × 3"),
        ({"image_size": 128}, "what classifier_depth and image_size make"),
        ({"classifier_pool": "spatial"}, "classifier_pool is attention in the file but spatial in the flags"),
        (
            {"classifier_pool": "adaptive"},
            "classifier_pool is attention in the file but adaptive in the flags",
        ),
        (
            {"classifier_pool": "spatial_v2"},
            "classifier_pool is attention in the file but spatial_v2 in the flags",
        ),
        ({"classifier_resblock_updown": False}, "classifier_resblock_updown is true in the file but false"),
        (
            {"classifier_use_scale_shift_norm": False},
            "classifier_use_scale_shift_norm is true in the file but false",
        ),
        ({"classifier_attention_resolutions": "32"}, "what classifier_attention_resolutions make"),
    ],
)
def test_a_wrong_flag_of_a_classifier_is_named(change: dict, message: str) -> None:
    flags = {
        "image_size": 64,
        "classifier_width": 64,
        "classifier_depth": 1,
        "classifier_attention_resolutions": "8",
    }
    state = random_state(guided_diffusion.describe_classifier(flags, {}))
    with pytest.raises(InputError, match=message):
        guided_diffusion.load_classifier(state, flags | change)


def test_what_no_flag_explains_is_counted() -> None:
    golden = Golden("C01_unet_guided_0")
    state = state_of(golden)
    del state["out.2.bias"]
    with pytest.raises(InputError, match=r"1 tensor is missing \(out.2.bias\)"):
        guided_diffusion.load(state, C01)
    state["out.2.bias"], state["extra"] = torch.zeros(7), torch.zeros(1)
    with pytest.raises(
        InputError, match=r"unknown.*extra.*another shape.*out.2.bias: \[7\] instead of \[6\]"
    ):
        guided_diffusion.load(state, C01)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"num_chanels": 32}, "did you mean 'num_channels'"),
        ({"num_channels": "many"}, "num_channels"),
        ({"noise_schedule": "quadratic"}, "noise_schedule"),
        ({"image_size": 48}, "32, 64, 128, 256, 512 pixels, not of 48: give channel_mult"),
        ({"attention_resolutions": "0,8"}, "pixels of a side"),
        ({"attention_resolutions": "a"}, "attention_resolutions"),
    ],
)
def test_flags_that_mean_nothing_are_refused(flags: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        guided_diffusion.load({}, flags)


def test_flags_as_they_are_typed() -> None:
    assert parse_flags(["a=1 b=x,y", "c="]) == {"a": "1", "b": "x,y", "c": ""}
    assert parse_flags(["--image_size 64 --learn_sigma True --c=3"]) == {
        "image_size": "64",
        "learn_sigma": "True",
        "c": "3",
    }
    assert parse_flags(['channel_mult="" d=1']) == {"channel_mult": "", "d": "1"}
    for wrong in ("image_size", "=3"):
        with pytest.raises(InputError, match="written a=b"):
            parse_flags([wrong])
    with pytest.raises(InputError, match="quotation"):
        parse_flags(['a="x'])
