"""The noisy classifier: what the network is given, what comes out, and what is refused."""

import math

import pytest
import torch

import scorefield as sf

PROCESS = sf.process.from_betas(sf.process.cosine_betas(1000))
DATA = sf.DataSpec((2,), classes=("a", "b", "c"))


class Linear(torch.nn.Module):
    """logits = A x + c·b, and the c that it was called with."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.A = torch.nn.Parameter(torch.randn(3, 2, generator=generator, dtype=dtype))
        self.b = torch.nn.Parameter(torch.randn(3, generator=generator, dtype=dtype))

    def forward(self, x, c):
        self.c = c
        return x @ self.A.mT + c[:, None].to(x) * self.b


def test_logits_of_the_network_at_its_noise_input():
    """The network receives x_t as it is and c as `noise_input` says, here t − 1 and ln(σ/α)/4 in closed form."""
    # [ADM Sec. 4]
    net, x, t = Linear(torch.float64), torch.randn(4, 2, dtype=torch.float64), torch.tensor([1, 2, 500, 1000])
    level = PROCESS.level(t)
    expected = {"index": t.double() - 1, "log_sigma": (level.sigma.log() - level.alpha.log()) / 4}
    for name, c in expected.items():
        logits = sf.NoisyClassifier(net, PROCESS, noise_input=name)(x, t)
        torch.testing.assert_close(logits, x @ net.A.mT + c[:, None] * net.b, rtol=1e-12, atol=1e-12)
    assert sf.NoisyClassifier(net, PROCESS)(x, 7).shape == (4, 3)
    assert torch.equal(net.c, torch.full((4,), 6.0, dtype=torch.float64))


@pytest.mark.parametrize(
    ("inside", "outside"),
    [(torch.float32, torch.float32), (torch.float64, torch.float64), (torch.bfloat16, torch.float32)],
)
def test_dtypes(inside, outside):
    """Logits are float32, or x's float64; c is never less than float32, or t = 999 would become 1,000."""
    net = Linear(inside)
    classifier = sf.NoisyClassifier(net, PROCESS)
    assert classifier(torch.zeros(2, 2, dtype=inside), 1000).dtype == outside
    assert net.c.dtype == outside
    assert net.c[0] == 999


def test_autocast_runs_the_network_alone():
    net = sf.nets.MLP(2, hidden=32, layers=1, out_dim=3)
    classifier = sf.NoisyClassifier(net, PROCESS, data=DATA)
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    full = classifier(x, 30)
    classifier.autocast_dtype = torch.bfloat16
    half = classifier(x, 30)
    assert half.dtype == torch.float32
    assert not torch.equal(half, full)
    torch.testing.assert_close(half, full, rtol=0.05, atol=0.05)


def test_casting_the_module_leaves_the_levels_alone():
    classifier = sf.NoisyClassifier(Linear(), PROCESS).to(torch.bfloat16)
    assert PROCESS.level(999).sigma.dtype == torch.float64
    assert next(classifier.parameters()).dtype == torch.bfloat16
    assert classifier.device == torch.device("cpu")


def test_facts():
    classifier = sf.NoisyClassifier(sf.nets.MLP(2, out_dim=3), PROCESS, noise_input="scaled", data=DATA)
    assert (classifier.num_classes, classifier.config) == (3, {"noise_input": "scaled"})
    assert sf.NoisyClassifier(Linear(), PROCESS).num_classes == 0
    images = sf.nets.Classifier(1, 7, image_size=8, channels=32, channel_mult=(1,), blocks=1, attention=())
    assert sf.NoisyClassifier(images, PROCESS).num_classes == 7


def test_gradients_reach_x_t():
    """∇ ln p(y | x_t) of a linear classifier is A_y − Σ_k p_k A_k."""
    net = Linear(torch.float64)
    x = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    logits = sf.NoisyClassifier(net, PROCESS)(x, 10)
    (gradient,) = torch.autograd.grad(logits.log_softmax(dim=1)[:, 1].sum(), x)
    torch.testing.assert_close(gradient, net.A[1] - logits.softmax(dim=1) @ net.A, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("t", [0, 0.0, torch.tensor([3, 0])])
def test_no_call_at_t_0(t):
    with pytest.raises(sf.InputError, match="t must be > 0"):
        sf.NoisyClassifier(Linear(), PROCESS)(torch.zeros(2, 2), t)


@pytest.mark.parametrize(
    ("shape", "data", "message"),
    [
        ((4, 5), DATA, r"expected \(4, 3\)"),
        ((4, 3, 1), None, r"\(4, K\)"),
        ((1, 3), None, r"\(4, K\)"),
    ],
)
def test_other_outputs_are_refused(shape, data, message):
    classifier = sf.NoisyClassifier(lambda x, c: torch.zeros(shape), PROCESS, data=data)
    with pytest.raises(sf.InputError, match=message):
        classifier(torch.zeros(4, 2), 3)


def test_pieces_that_do_not_fit_are_refused():
    with pytest.raises(sf.InputError, match="noise_input must be one of index"):
        sf.NoisyClassifier(Linear(), PROCESS, noise_input="indx")
    with pytest.raises(sf.InputError, match="Gaussian process"):
        sf.NoisyClassifier(Linear(), object())  # type: ignore[arg-type]
    images = sf.nets.Classifier(1, 2, image_size=8, channels=32, channel_mult=(1,), blocks=1, attention=())
    with pytest.raises(sf.InputError, match=r"2 classes.*3"):
        sf.NoisyClassifier(images, PROCESS, data=sf.DataSpec((1, 8, 8), classes=("a", "b", "c")))


def test_a_continuous_process():
    """t is real there, so the classifier is asked at any of them; "index" counts levels and has no meaning."""
    process = sf.process.vp()
    net = Linear(torch.float64)
    logits = sf.NoisyClassifier(net, process, noise_input="scaled")(
        torch.zeros(2, 2, dtype=torch.float64), 0.25
    )
    torch.testing.assert_close(logits, (250 * net.b).expand(2, 3), rtol=1e-12, atol=0)
    assert math.isclose(net.c[0], 250)
    with pytest.raises(sf.IncompatibleModel, match="counts levels"):
        sf.NoisyClassifier(net, process)(torch.zeros(2, 2), 0.25)
