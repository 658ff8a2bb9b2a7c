"""Printed objects say what they are, in one line but for networks."""

import torch

import scorefield as sf
from scorefield.store.run_folder import RunFolder

PROCESS = sf.process.from_betas(sf.process.linear_betas(1000))
DATA = sf.DataSpec((1, 8, 8), classes=("a", "b"))
MIXTURE = sf.oracle.GaussianMixture([[0.0, 1.0]], [[[1.0, 0.0], [0.0, 1.0]]])


def denoiser():
    return sf.Denoiser(sf.nets.UNet(1, channels=32, num_classes=2, null_label=True), PROCESS, "v", data=DATA)


def test_models_name_what_they_are_made_of():
    first = repr(denoiser()).splitlines()[1].strip()
    assert first == f"parametrization='v', process={PROCESS!r}, data=(1, 8, 8)"
    assert "num_classes=" in repr(sf.NoisyClassifier(sf.nets.MLP(2, out_dim=3), PROCESS))


def test_wrappers_name_what_they_are_around():
    model = denoiser()
    guidance = sf.guidance
    guided = guidance.ClassifierGuidance(
        guidance.ClipX0(model.given(1)), MIXTURE.classifier(PROCESS), 0, scale=2.5
    )
    assert repr(guided) == (
        "ClassifierGuidance(ClipX0(Given(Denoiser, y=1), low=-1, high=1), y=0, scale=2.5, at='x_t')"
    )
    free = guidance.DynamicThreshold(guidance.ClassifierFree(model, [0, 1, 0, 1], [1.0, 2.0]))
    assert repr(free) == (
        "DynamicThreshold(ClassifierFree(Denoiser, y=[0, 1, 0, … of 4], scale=[1, 2]), quantile=0.995, low=-1, high=1)"
    )


def test_the_others_too(tmp_path):
    assert repr(sf.NoiseSource(3)) == "NoiseSource(seed=3)"
    assert repr(sf.NoiseSource(3, range(5)).at(2)) == "NoiseSource(seed=3, 5 samples, step=2)"
    tape = sf.noise.Recorded([torch.zeros(2), torch.zeros(2)])
    tape.normal((2,))
    assert repr(tape) == "Recorded(2 draws, 1 used)"
    assert repr(MIXTURE) == "GaussianMixture(components=1, dimensions=2)"
    assert repr(MIXTURE.denoiser(PROCESS)) == f"MixtureDenoiser({MIXTURE!r}, {PROCESS!r})"
    assert repr(sf.data.digits()) == "Dataset('digits', 1,797 examples of (1, 8, 8), 10 classes)"
    assert repr(RunFolder(tmp_path)) == f"RunFolder({str(tmp_path)!r})"
    model = sf.Denoiser(sf.nets.MLP(2), PROCESS, data=sf.DataSpec((2,), bins=None))
    trainer = sf.train(sf.objectives.Simple(model), torch.zeros(8, 2), steps=5, batch_size=4)
    next(trainer)
    assert repr(trainer) == "Trainer(step 1 of 5)"
