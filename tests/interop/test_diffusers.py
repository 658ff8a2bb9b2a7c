"""diffusers loads what is exported and computes the same; what it saves is imported and computes the same;
the rest is refused.
"""

import json
import math
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import scorefield as sf
from scorefield.core.shapes import DataSpec
from scorefield.interop import diffusers as interop
from scorefield.interop.diffusers_names import to_diffusers
from scorefield.interop.diffusers_unet import structure_of
from scorefield.interop.importing import import_run
from scorefield.models.guidance import ClipX0
from scorefield.models.score_model import ScoreModel
from scorefield.nets import MLP, DDPMUNet, UNet
from scorefield.runs.build import SamplingOptions, build_grid, read_run
from scorefield.runtime.errors import IncompatibleModel, InputError
from scorefield.runtime.registry import GRIDS

DDIM = SamplingOptions(sampler={"kind": "ddim"}, steps=10, clip=False)
LINEAR = sf.process.linear(1000)

# Every kind of network that UNet2DModel expresses: (class, channels of its images, options).
TWO = {"channels": 32, "channel_mult": (1, 2)}
BIGGAN = {"blocks": 1, "updown": True}
NETS: dict[str, tuple[type, int, dict]] = {
    "ddpm": (DDPMUNet, 3, {"channels": 32, "channel_mult": (1, 2, 1), "blocks": 1, "attention": (2,)}),
    "ddpm, one level": (DDPMUNet, 1, {"channels": 32, "channel_mult": (1,), "blocks": 2, "attention": (1,)}),
    "digits": (
        UNet,
        1,
        {**TWO, "blocks": 2, "attention": (2,), "heads": 4, "num_classes": 3, "null_label": True},
    ),
    "adm": (
        UNet,
        3,
        {"channels": 32, "channel_mult": (1, 2, 3), "attention": (2, 4), "head_channels": 16, **BIGGAN},
    ),
    "adm, new order": (
        UNet,
        1,
        {**TWO, "attention": (1, 2), "head_channels": 8, "attention_order": "new", **BIGGAN},
    ),
    "added embedding": (UNet, 3, {**TWO, "blocks": 1, "attention": (1,), "heads": 1, "scale_shift": False}),
    "four groups": (
        UNet,
        3,
        {**TWO, "blocks": 1, "attention": (2,), "heads": 4, "norm_groups": 4},
    ),
    "fractions": (
        UNet,
        1,
        {"channels": 64, "channel_mult": (1, 1.5, 0.5), "blocks": 1, "attention": (), "heads": 2},
    ),
}


def model_of(name="ddpm", process=LINEAR, parametrization="eps", variance=None, **options):
    """A model whose every parameter is random: nothing is hidden behind a zero-initialised layer."""
    make, channels, shape = NETS[name]
    net = make(channels, out_channels=(2 if variance else 1) * channels, **shape)
    randomize(net)
    data = DataSpec((net.config["in_channels"], 8, 8), (-1.0, 1.0), tuple("abc"), 17)
    return sf.Denoiser(net, process, parametrization, variance, data=data, **options).eval()


def randomize(net):
    generator = torch.Generator().manual_seed(1)
    for parameter in net.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)


def examples(model, count=3, seed=2):
    return torch.randn((count, *model.data.shape), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def theirs():
    """diffusers itself, whose import takes seconds."""
    return pytest.importorskip("diffusers")


# Export


@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_diffusers_computes_the_same_network(tmp_path, theirs, name):
    model = model_of(name)
    interop.export(model, tmp_path / "out", DDIM)
    unet = theirs.UNet2DModel.from_pretrained(tmp_path / "out", subfolder="unet")
    x, labels = examples(model), torch.tensor([0, 3, 1]) if model.num_classes else None  # 3 is the null label
    times = torch.tensor([1, 372, 1000])
    raw = model.net(x, (times - 1).float(), labels)
    assert raw.abs().max() > 0.1
    assert (unet(x, times - 1, class_labels=labels).sample - raw).abs().max() < 1e-5
    alone = unet(x[:1], 999, class_labels=None if labels is None else labels[:1]).sample
    assert (
        alone - model.net(x[:1], torch.tensor([999.0]), None if labels is None else labels[:1])
    ).abs().max() < 1e-5


class Returns(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, _):
        return self.value


@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_the_networks_are_the_same_function_in_float64(tmp_path, theirs, name):
    """diffusers computes the embedding of t in float32 whatever the weights, so it is given in float64, by
    its formula.
    """
    model = model_of(name)
    interop.export(model, tmp_path / "out", DDIM)
    unet = theirs.UNet2DModel.from_pretrained(tmp_path / "out", subfolder="unet").double()
    dim, c = model.net.config["channels"], torch.tensor([0.0, 371.0, 999.0], dtype=torch.float64)
    half = dim // 2 - (1 if name.startswith("ddpm") else 0)
    angles = c[:, None] * torch.exp(-math.log(10_000) * torch.arange(dim // 2, dtype=torch.float64) / half)
    parts = [angles.sin(), angles.cos()] if name.startswith("ddpm") else [angles.cos(), angles.sin()]
    unet.time_proj = Returns(torch.cat(parts, 1))
    labels = torch.tensor([0, 3, 1]) if model.num_classes else None
    x = examples(model).double()
    ours = model.double().net(x, c, labels)
    assert (unet(x, c, class_labels=labels).sample - ours).abs().max() < 1e-10


@pytest.mark.parametrize("parametrization", ["eps", "v", "x0"])
@pytest.mark.parametrize("clip", [False, True])
@torch.no_grad()
def test_ddim_makes_the_same_image(tmp_path, theirs, parametrization, clip):
    """Of the same start, on the same grid: `trailing` in 10 steps. diffusers' tables are float32, hence 2e-4."""
    model = model_of(parametrization=parametrization)
    interop.export(model, tmp_path / "out", DDIM.model_copy(update={"clip": clip}))
    assert json.loads((tmp_path / "out" / "model_index.json").read_text())["_class_name"] == "DDIMPipeline"
    pipeline = theirs.DDIMPipeline.from_pretrained(tmp_path / "out")
    pipeline.set_progress_bar_config(disable=True)
    seeded = torch.Generator().manual_seed(5)
    image = pipeline(
        2, generator=seeded, num_inference_steps=10, use_clipped_model_output=True, output_type="pt"
    ).images
    start = torch.randn((2, 3, 8, 8), generator=torch.Generator().manual_seed(5))
    sampled = ClipX0(model) if clip else model
    ours = sf.sample(sampled, sf.samplers.DDIM(0.0), sf.grids.uniform(model.process, 10), x_T=start)
    assert ours.std() > 0.05
    assert (pipeline.scheduler.timesteps + 1).tolist() == sf.grids.uniform(model.process, 10).tolist()[:-1]
    assert (image - (ours / 2 + 0.5).clamp(0, 1)).abs().max() < 2e-4
    x = start
    for t in pipeline.scheduler.timesteps:  # and before the image's clamp
        x = pipeline.scheduler.step(
            pipeline.unet(x, t).sample, t, x, use_clipped_model_output=True
        ).prev_sample
    assert (x - ours).abs().max() < 2e-4 * max(1.0, ours.abs().max().item())


@pytest.mark.parametrize(
    ("variance", "head", "grid"),
    [("lower", None, "uniform"), ("upper", None, "leading"), ("learned", "range", "leading")],
)
@torch.no_grad()
def test_ddpm_makes_the_same_image(tmp_path, theirs, variance, head, grid):
    """Ancestral sampling with the noise that the pipeline drew, in 8 steps of a process of 40."""
    process = sf.process.linear(40, 0.1 / 40, 20 / 40)
    model = model_of(process=process, variance=head)
    sampling = SamplingOptions(
        sampler={"kind": "ancestral", "variance": variance}, grid=grid, steps=8, clip=True
    )
    notes = interop.export(model, tmp_path / "out", sampling)
    pipeline = theirs.DDPMPipeline.from_pretrained(tmp_path / "out")
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline(
        2, generator=torch.Generator().manual_seed(5), num_inference_steps=8, output_type="np"
    ).images
    seeded = torch.Generator().manual_seed(5)
    start, *noise = [torch.randn((2, 3, 8, 8), generator=seeded) for _ in range(8)]
    ours = sf.sample(
        ClipX0(model),
        sf.samplers.Ancestral(variance),
        getattr(sf.grids, grid)(process, 8),
        x_T=start,
        noise=sf.noise.Recorded(noise),
    )
    difference = torch.as_tensor(image).permute(0, 3, 1, 2) - (ours / 2 + 0.5).clamp(0, 1)
    assert difference.abs().max() < 2e-4
    assert any("DDIMPipeline cannot take" in note for note in notes) == (head is not None)


def test_steps_that_diffusers_takes_differently_are_noted(tmp_path):
    """Its DDPM step to data adds noise unless it starts from t = 1; its DDIM steps all have the length ⌊T/n⌋."""

    def notes(sampler, **options):
        sampling = SamplingOptions(sampler=sampler, **options)
        return " ".join(interop.usage(model_of(), sampling))

    upper = {"kind": "ancestral", "variance": "upper"}
    assert "adds noise on the last step" in notes(upper, steps=10)
    assert "adds noise" not in notes(upper, grid="full") + notes(upper, grid="leading", steps=10)
    assert "adds noise" not in notes({"kind": "ancestral", "variance": "lower"}, steps=10)
    assert "that divide 1,000" in notes({"kind": "ddim"}, steps=30)
    assert "eta=0.3" in notes({"kind": "ddim", "eta": 0.3}, steps=25)
    assert "sampler is heun" in notes({"kind": "heun"}, steps=25)
    assert "grid is quadratic" in notes({"kind": "ddim"}, grid="quadratic", steps=25)


PROCESSES = {
    "linear": sf.process.linear_betas(1000),
    "cosine": sf.process.cosine_betas(1000),
    "table": sf.process.linear_betas(50, 0.03, 0.3) ** 1.1,
}


@pytest.mark.parametrize("name", PROCESSES)
def test_the_scheduler_has_the_process_s_levels(tmp_path, theirs, name):
    process = sf.process.from_betas(PROCESSES[name])
    interop.export(model_of(process=process), tmp_path / "out", DDIM)
    scheduler = theirs.DDIMScheduler.from_pretrained(tmp_path / "out", subfolder="scheduler")
    alpha_bar = process.level(torch.arange(1, process.T + 1)).alpha ** 2
    assert (
        scheduler.alphas_cumprod / alpha_bar - 1
    ).abs().max() < 2e-3  # the last one of cosine is 2e-9, in float32
    assert (scheduler.alphas_cumprod - alpha_bar).abs().max() < 2e-6


def test_a_conditional_model_is_no_pipeline(tmp_path):
    notes = interop.export(model_of("digits"), tmp_path / "out", DDIM)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["scheduler", "unet"]
    assert notes[0].startswith("diffusers' pipelines take no labels")


def small_unet(**options):
    return UNet(1, **{"channels": 32, "channel_mult": (1, 2), "blocks": 1, "attention": (2,), **options})


REFUSED = [
    (
        {"net": small_unet(attention=(1, 2), heads=4)},
        r"heads of 8, 16 channels .*net\.head_channels",
    ),
    ({"net": small_unet(rescale_residual=True, heads=1)}, "1/√2"),
    ({"net": small_unet(conv_resample=False, heads=1)}, "without convolutions"),
    (
        {"net": DDPMUNet(1, channels=32, channel_mult=(2, 1), blocks=1)},
        "a first level of 64 channels beside 32",
    ),
    ({"net": small_unet(low_res=True, heads=1)}, "low_res"),
    ({"net": MLP(64)}, "cannot express the network 'mlp', only ddpm-unet and unet"),
    ({"net": nn.Identity()}, "cannot express the network 'Identity'"),
    ({"parametrization": "score"}, "parametrization 'score'"),
    ({"parametrization": "edm"}, "parametrization 'edm'"),
    ({"noise_input": "log_sigma"}, "noise input 'log_sigma'"),
    ({"variance": "direct"}, "ln Σ directly"),
    ({"process": sf.process.geometric(10.0, 0.1, 3)}, "process 'geometric'"),
    ({"process": sf.process.vp()}, "process 'vp'"),
    ({"data": DataSpec((1, 8, 8), (0.0, 1.0))}, r"range \[0.0, 1.0\]"),
    ({"data": None}, "not images"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_diffusers_cannot_express_is_refused_with_the_reason(tmp_path, options, message):
    net = DDPMUNet(1, channels=32, channel_mult=(1, 2), out_channels=2 if options.get("variance") else None)
    model = sf.Denoiser(**{"net": net, "process": LINEAR, "data": DataSpec((1, 8, 8)), **options})
    with pytest.raises(IncompatibleModel, match=message):
        interop.export(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_all_reasons_are_named_and_other_models_refused(tmp_path):
    net = small_unet(channel_mult=(2, 2), rescale_residual=True, heads=1)
    model = sf.Denoiser(net, LINEAR, "score", noise_input="rank", data=DataSpec((1, 8, 8)))
    with pytest.raises(
        IncompatibleModel,
        match=r"1/√2 .*; nor a first level .*; nor the parametrization .*; nor the noise input",
    ):
        interop.export(model, tmp_path / "out")
    with pytest.raises(IncompatibleModel, match="this is a ScoreModel"):
        interop.export(ScoreModel(MLP(2, noise_levels=False)), tmp_path / "out")  # type: ignore[arg-type]


def test_scaled_times_of_a_thousand_levels_are_indices():
    assert interop.lacking(model_of(noise_input="scaled")) == []
    short = sf.process.linear(500, 0.1 / 500, 20 / 500)
    assert len(interop.lacking(model_of(process=short, noise_input="scaled"))) == 1


def test_the_folder_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "a.txt").write_text("mine")
    with pytest.raises(InputError, match="not an empty folder"):
        interop.export(model_of(), tmp_path / "taken", DDIM)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(interop, "save_file", full)
    with pytest.raises(InputError, match="No space left"):
        interop.export(model_of(), tmp_path / "out", DDIM)
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


# Import of what was exported


SAMPLINGS = [
    SamplingOptions(sampler={"kind": "ancestral", "variance": "lower"}, steps=40, clip=False),
    SamplingOptions(sampler={"kind": "ddim", "eta": 0.5}, grid="leading", steps=20),
]


@pytest.mark.parametrize("name", NETS)
def test_back_it_is_the_same_model(tmp_path, name):
    model = model_of(name, parametrization="v")
    sampling = SAMPLINGS[name.startswith("ddpm")]
    interop.export(model, tmp_path / "out", sampling)
    assert import_run("diffusers", tmp_path / "out", tmp_path / "run").notes == ()
    back, (recipe, data) = sf.load(tmp_path / "run"), read_run(tmp_path / "run")
    assert back.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(value, back.state_dict()[name]) for name, value in model.state_dict().items())
    assert back.net.config == model.net.config  # type: ignore[attr-defined]
    assert (back.config, back.process.config, data) == (model.config, model.process.config, model.data)
    assert recipe.sampling == sampling


@torch.no_grad()
def test_a_changed_configuration_wins_over_what_the_export_left(tmp_path):
    """What is left in the weights only names what diffusers' configuration leaves open."""
    model = model_of("digits")
    interop.export(model, tmp_path / "out", SAMPLINGS[0])
    change(
        tmp_path / "out" / "scheduler" / "scheduler_config.json",
        prediction_type="v_prediction",
        clip_sample=True,
    )
    back = interop.read_folder(tmp_path / "out")
    assert (back.model.parametrization, back.sampling["clip"]) == ("v", True)
    file = tmp_path / "out" / "unet" / "diffusion_pytorch_model.safetensors"
    save_file(load_file(file), file)  # without what was left
    plain = interop.read_folder(tmp_path / "out").model
    assert plain.data.classes == ("0", "1", "2", "3")
    assert (plain.net.config["attention_order"], plain.net.config["head_channels"]) == ("new", 16)  # type: ignore[attr-defined]
    x, y = examples(model), torch.tensor([0, 1, 2])
    assert torch.allclose(plain.net(x, torch.ones(3), y), model.net(x, torch.ones(3), y), atol=1e-6)


def change(path, *without, **values):
    old = {name: value for name, value in json.loads(path.read_text()).items() if name not in without}
    path.write_text(json.dumps({**old, **values}))


# Import of what diffusers saved


UNETS = {
    "its default, smaller": {
        "block_out_channels": (32, 64),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
    },
    "google/ddpm-cifar10-32, smaller": {
        "block_out_channels": (32, 64, 64),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
        "attention_head_dim": None,
        "downsample_padding": 0,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "norm_eps": 1e-6,
    },
    "residual resampling, classes": {
        "block_out_channels": (32, 96),
        "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "ResnetUpsampleBlock2D"),
        "downsample_type": "resnet",
        "upsample_type": "resnet",
        "layers_per_block": 1,
        "attention_head_dim": 32,
        "resnet_time_scale_shift": "scale_shift",
        "attn_norm_num_groups": 32,
        "num_class_embeds": 4,
    },
}
SCHEDULERS = {
    "its default, smaller": ("DDPMScheduler", {"beta_schedule": "squaredcos_cap_v2"}),
    "google/ddpm-cifar10-32, smaller": ("DDPMScheduler", {"variance_type": "fixed_large"}),
    "residual resampling, classes": (
        "DDIMScheduler",
        {"beta_schedule": "scaled_linear", "prediction_type": "v_prediction"},
    ),
}


@pytest.fixture
def saved(tmp_path, theirs):
    """A folder that diffusers made, and its network."""

    def save(name="its default, smaller"):
        unet = theirs.UNet2DModel(sample_size=8, **UNETS[name]).eval()
        randomize(unet)
        kind, options = SCHEDULERS[name]
        scheduler = getattr(theirs, kind)(**options)
        if name.startswith("google"):  # a whole pipeline, with model_index.json
            theirs.DDPMPipeline(unet, scheduler).save_pretrained(tmp_path / "saved")
        else:
            unet.save_pretrained(tmp_path / "saved" / "unet")
            scheduler.save_pretrained(tmp_path / "saved" / "scheduler")
        return tmp_path / "saved", unet

    return save


@pytest.mark.parametrize("name", UNETS)
@torch.no_grad()
def test_what_diffusers_saved_is_an_ordinary_run(tmp_path, theirs, saved, name):
    folder, unet = saved(name)
    imported = import_run("diffusers", folder, tmp_path / "run")
    assert imported.notes == ()
    model, (recipe, data) = sf.load(tmp_path / "run"), read_run(tmp_path / "run")
    assert (data.shape, len(data.classes)) == ((3, 8, 8), UNETS[name].get("num_class_embeds", 0))
    scheduler = getattr(theirs, SCHEDULERS[name][0]).from_pretrained(folder, subfolder="scheduler")
    x, y = examples(model), torch.tensor([3, 0, 1]) if data.classes else None
    for t in (1, 500, 1000):
        raw = unet(x, t - 1, class_labels=y).sample
        pred = model(x, t, y)
        assert (pred.raw - raw).abs().max() < 1e-5
        assert abs(float(model.process.level(t).alpha ** 2 - scheduler.alphas_cumprod[t - 1])) < 2e-6
    assert (recipe.sampling.sampler["kind"], recipe.sampling.steps) == (
        ("ddim", 50) if data.classes else ("ancestral", None)
    )
    assert recipe.trained_on.source == "the diffusers weights saved/diffusion_pytorch_model.safetensors"


@torch.no_grad()
def test_files_of_old_versions(tmp_path, saved):
    """google/ddpm-*: one flat folder, a pickle of tensors, attention under old names, fewer options."""
    folder, unet = saved("google/ddpm-cifar10-32, smaller")
    flat = tmp_path / "flat"
    flat.mkdir()
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = unet.state_dict()
    for new, name in old.items():
        state = {key.replace(f".{new}.", f".{name}."): value for key, value in state.items()}
    assert any("proj_attn" in key for key in state)
    torch.save(state, flat / "diffusion_pytorch_model.bin")
    (flat / "config.json").write_text((folder / "unet" / "config.json").read_text())
    change(
        flat / "config.json",
        "dropout",
        "class_embed_type",
        "downsample_type",
        "add_attention",
        "num_train_timesteps",
    )
    (flat / "scheduler_config.json").write_text((folder / "scheduler" / "scheduler_config.json").read_text())
    change(flat / "scheduler_config.json", "prediction_type", "timestep_spacing", tensor_format="pt")
    read = interop.read_folder(flat)
    assert "tensor_format" in read.notes[0]
    assert isinstance(read.model.net, DDPMUNet)
    assert read.sampling["sampler"] == {"kind": "ancestral", "variance": "upper"}
    x = examples(read.model)
    assert (read.model(x, 400).eps - unet(x, 399).sample).abs().max() < 1e-5


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("T", [20, 1000, 1200])
def test_a_pipeline_of_ddpm_can_be_sampled_as_it_is(tmp_path, exported, spacing, T):
    """DDPMPipeline says no number of steps: it takes 1,000, or every level where there are fewer."""
    folder = copied(exported, tmp_path / "out")
    schedule = {"_class_name": "DDPMScheduler", "timestep_spacing": spacing, "num_train_timesteps": T}
    change(folder / SCHEDULER, **schedule)
    change(folder / "model_index.json", _class_name="DDPMPipeline", scheduler=["diffusers", "DDPMScheduler"])
    import_run("diffusers", folder, tmp_path / "run")
    sampling = sf.Run(tmp_path / "run").sampling(device="cpu")
    assert sampling.steps == min(T, 1000)
    if T <= 1000:
        assert sampling.grid.tolist() == list(range(T, -1, -1))
    sampling.check()


def test_a_run_of_a_leading_grid_without_steps_takes_every_level():
    """As an earlier version wrote imported runs."""
    process = sf.process.linear(37)
    for grid in ("leading", "linspace", "trailing", "uniform"):
        times = build_grid(SamplingOptions(grid=grid), process)
        assert times.tolist() == list(range(37, -1, -1))
        assert torch.equal(times, GRIDS[grid](process, 37))


def test_from_tensors_in_memory(saved):
    folder, unet = saved()
    flags = {
        "unet": json.loads((folder / "unet" / "config.json").read_text()),
        "scheduler": json.loads((folder / "scheduler" / "scheduler_config.json").read_text()),
    }
    model = interop.load(unet.state_dict(), flags)
    again = to_diffusers(model.net.state_dict(), structure_of(model.net), "new")  # type: ignore[attr-defined]
    assert all(torch.equal(again[name], value) for name, value in unet.state_dict().items())
    with pytest.raises(InputError, match="the unet is a None"):
        interop.load(unet.state_dict(), {})


def test_what_changes_only_the_drawing_of_samples_is_noted(tmp_path):
    interop.export(model_of(), tmp_path / "out", DDIM)
    file = tmp_path / "out" / "scheduler" / "scheduler_config.json"
    change(file, clip_sample=True, clip_sample_range=2.0, set_alpha_to_one=False, thresholding=True)
    notes = interop.read_folder(tmp_path / "out").notes
    assert [note.split("'s ")[1].split(" is")[0] for note in notes] == [
        "thresholding",
        "clip_sample_range 2",
        "set_alpha_to_one false",
    ]


class Canary:
    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    interop.export(model_of(), tmp_path / "out", DDIM)
    (tmp_path / "out" / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(
        {"conv_in.weight": Canary(tmp_path / "trace")},
        tmp_path / "out" / "unet" / "diffusion_pytorch_model.bin",
    )
    with pytest.raises(InputError, match="Nothing in it was run"):
        interop.read_folder(tmp_path / "out")
    assert not (tmp_path / "trace").exists()


UNET, SCHEDULER = "unet/config.json", "scheduler/scheduler_config.json"
MISTAKES = [
    (
        UNET,
        {"down_block_types": ["DownBlock2D", "AttnDownBlock2D", "AttnSkipDownBlock2D"]},
        "'DownBlock2D', 'AttnDownBlock2D' or",
    ),
    (UNET, {"up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D"]}, "at different levels"),
    (UNET, {"down_block_types": ["DownBlock2D"]}, "differ in length"),
    (
        UNET,
        {"norm_eps": 1e-5},
        r"no network with flip_sin_to_cos False, freq_shift 1.0, norm_eps 1e-05.*; those there are",
    ),
    (UNET, {"time_embedding_type": "fourier"}, "time_embedding_type"),
    (UNET, {"add_attention": False}, "add_attention"),
    (UNET, {"norm_num_groups": 16}, "norm_num_groups"),
    (UNET, {"norm_num_groups": 0}, "norm_num_groups"),
    (UNET, {"norm_num_groups": 32, "attn_norm_num_groups": 8}, "one number of groups"),
    (UNET, {"act_fn": "relu"}, "act_fn"),
    (UNET, {"class_embed_type": "timestep"}, "class_embed_type"),
    (UNET, {"center_input_sample": True}, "center_input_sample"),
    (UNET, {"attention_head_dim": 8}, "attention_head_dim 8"),
    (UNET, {"num_class_embeds": 4}, "num_class_embeds"),
    (UNET, {"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": None}, "no normalization"),
    (UNET, {"time_embedding_dim": 64}, "time_embedding_dim"),
    (UNET, {"sample_size": None}, "no sample_size"),
    (UNET, {"out_channels": 6}, "gives 6 channels"),
    (UNET, {"layers_per_block": "many"}, "layers_per_block"),
    (UNET, {"block_out_channels": [32, 40, 32]}, "40 channels"),
    (UNET, {"layers_per_block": 2}, "the weights are not those .* are missing"),
    (UNET, {"some_new_option": 1}, "no option unet.some_new_option"),
    (UNET, {"_class_name": "UNet2DConditionModel"}, "the unet is a UNet2DConditionModel"),
    (SCHEDULER, {"_class_name": "EulerDiscreteScheduler"}, "the scheduler is a EulerDiscreteScheduler"),
    (SCHEDULER, {"prediction_type": "flow"}, "prediction_type"),
    (SCHEDULER, {"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr"),
    (SCHEDULER, {"beta_schedule": "laplace"}, "beta_schedule"),
    (SCHEDULER, {"trained_betas": [0.1, 0.2]}, "2 entries, and num_train_timesteps is 1000"),
    (SCHEDULER, {"beta_end": 2.0}, "at most 1, got 2.0"),
    ("model_index.json", {"vqvae": ["diffusers", "VQModel"]}, "pipeline with vqvae"),
]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "out"
    interop.export(model_of(), folder, DDIM)
    return folder


def copied(folder: Path, target: Path) -> Path:
    for path in folder.rglob("*"):
        if path.is_file():
            (target / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
            (target / path.relative_to(folder)).write_bytes(path.read_bytes())
    return target


@pytest.mark.parametrize(
    ("file", "values", "message"), MISTAKES, ids=[f"{f} {v}"[:70] for f, v, _ in MISTAKES]
)
def test_what_cannot_be_imported_is_said_in_one_line(tmp_path, exported, file, values, message):
    folder = copied(exported, tmp_path / "out")
    change(folder / file, **values)
    with pytest.raises(InputError, match=message) as caught:
        import_run("diffusers", folder, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_missing_and_broken_files(tmp_path, exported):
    folder = copied(exported, tmp_path / "out")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    with pytest.raises(InputError, match="there is no folder"):
        interop.read_folder(tmp_path / "none")
    with pytest.raises(InputError, match="there is no folder"):
        interop.read_folder(weights)
    (folder / UNET).write_text("{")
    with pytest.raises(InputError, match=r"config\.json: cannot be read \(.*line 1"):
        interop.read_folder(folder)
    (folder / UNET).write_text("[]")
    with pytest.raises(InputError, match=r"must hold a table of options.*got \[\]"):
        interop.read_folder(folder)
    (folder / UNET).unlink()
    with pytest.raises(InputError, match=r"config\.json: there is no such file.*save_pretrained"):
        interop.read_folder(folder)
    copied(exported, folder)
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InputError, match="damaged, cut off"):
        interop.read_folder(folder)
    weights.rename(weights.with_name("diffusion_pytorch_model.fp16.safetensors"))
    with pytest.raises(
        InputError, match=r"there is config\.json, diffusion_pytorch_model\.fp16\.safetensors"
    ):
        interop.read_folder(folder)


def test_the_averaged_weights_of_a_checkpoint_are_taken(tmp_path, exported):
    """As diffusers' training leaves them: the averages beside the weights of the step, the scheduler in the pipeline
    around them.
    """
    pipeline = copied(exported, tmp_path / "pipeline")
    expected = interop.read_folder(pipeline).model.state_dict()
    checkpoint = pipeline / "checkpoint-500"
    shutil.copytree(pipeline / "unet", checkpoint / "unet_ema")
    (pipeline / "unet").rename(checkpoint / "unet")
    config = json.loads((checkpoint / "unet_ema" / "config.json").read_text())
    (checkpoint / "unet_ema" / "config.json").write_text(
        json.dumps({**config, "decay": 0.9999, "optimization_step": 500})
    )
    weights = checkpoint / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: value + 1 for name, value in load_file(weights).items()}, weights)
    found = interop.read_folder(checkpoint)
    assert all(torch.equal(value, expected[name]) for name, value in found.model.state_dict().items())
    assert found.notes[0] == "took the averaged (EMA) weights, unet_ema"
    assert "took the scheduler of the folder around it" in found.notes[1]


def test_a_missing_and_an_extra_tensor_are_named(tmp_path, exported):
    folder = copied(exported, tmp_path / "out")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    del state["conv_in.bias"]
    state["extra.weight"] = torch.zeros(2)
    save_file(state, weights)
    with pytest.raises(
        InputError, match=r"1 tensor is missing \(conv_in\.bias\); 1 tensor is unknown \(extra\.weight\)"
    ):
        interop.read_folder(folder)


def test_what_an_export_left_is_never_trusted(tmp_path, exported):
    """It comes with someone's file: anything that does not fit the configuration is as if it were not there."""
    folder = copied(exported, tmp_path / "out")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    net = {"kind": "ddpm-unet", "in_channels": 3, "channels": 64}
    for left in (
        "{",
        "[]",
        "{}",
        json.dumps({"net": {"kind": ["a"]}}),
        json.dumps({"net": {"kind": "mlp"}}),
        json.dumps({"net": net}),
    ):
        save_file(state, weights, {"format": "pt", "scorefield": left})
        read = interop.read_folder(folder)
        assert read.model.data.bins == 256
        assert read.sampling["steps"] == 50


def test_a_folder_takes_no_flags(tmp_path, exported):
    with pytest.raises(InputError, match="remove card, flags"):
        import_run("diffusers", exported, tmp_path / "run", flags={"a": "1"})
