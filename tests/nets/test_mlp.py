"""The multilayer perceptron: shapes, and networks without noise levels."""

import resource

import pytest
import torch

from scorefield.nets import MLP
from scorefield.runtime.errors import InputError


@pytest.mark.parametrize("shape", [(4, 6), (4, 2, 3), (4, 1, 2, 3), (4, 6, 1, 1)])
@pytest.mark.parametrize("factor", [1, 2])
def test_shapes(shape: tuple[int, ...], factor: int) -> None:
    net = MLP(6, hidden=8, layers=1, out_dim=6 * factor)
    assert net(torch.randn(shape), torch.rand(4)).shape == (4, factor * shape[1], *shape[2:])


def test_scalars_without_a_data_dimension() -> None:
    assert MLP(1, hidden=8)(torch.randn(4), torch.rand(4)).shape == (4,)


def test_other_sizes_come_out_flat() -> None:
    assert MLP(6, hidden=8, out_dim=10)(torch.randn(4, 2, 3), torch.rand(4)).shape == (4, 10)


def test_channels_of_a_doubled_result_are_those_of_the_flat_one() -> None:
    net = MLP(6, hidden=8, out_dim=12)
    x, c = torch.randn(4, 2, 3), torch.rand(4)
    assert torch.equal(net(x, c).flatten(1), net(x.flatten(1), c))


def test_without_noise_levels() -> None:
    net = MLP(2, hidden=8, layers=1, noise_levels=False)
    assert net(torch.randn(5, 2)).shape == (5, 2)
    assert not any("embed" in name for name, _ in net.named_parameters())
    with pytest.raises(InputError, match="c=None"):
        net(torch.randn(5, 2), torch.rand(5))
    with pytest.raises(InputError, match="noise value c"):
        MLP(2)(torch.randn(5, 2))


def test_classes_without_noise_levels() -> None:
    net = MLP(2, hidden=8, layers=1, noise_levels=False, num_classes=3, null_label=True)
    net(torch.randn(4, 2), None, torch.tensor([0, 1, 2, 3])).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_the_score_has_second_derivatives() -> None:
    net = MLP(2, hidden=8, noise_levels=False).double()
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(net, (x,))
    assert torch.autograd.gradgradcheck(net, (x,))


def test_errors() -> None:
    with pytest.raises(InputError, match="takes 2 values"):
        MLP(2)(torch.randn(5, 3), torch.rand(5))
    with pytest.raises(InputError, match="layers"):
        MLP(2, layers=0)


def test_sizes_that_are_together_beyond_memory_are_said() -> None:
    """Each is allowed; the weights are of four terabytes, in a process of one."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (2**40, before[1]))
    try:
        with pytest.raises(
            InputError, match="not enough memory for the parameters of this MLP: make it smaller"
        ):
            MLP(2**20, hidden=2**20)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    with torch.device("meta"):
        assert sum(weight.numel() for weight in MLP(2**20, hidden=2**20).parameters()) > 2**40
