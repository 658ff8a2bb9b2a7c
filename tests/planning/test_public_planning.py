"""The names of planning and importing that Python programs use."""

import pytest

import scorefield as sf


def test_the_cost_of_a_model_counts_its_matrix_products():
    net = sf.nets.MLP(2, hidden=16, layers=1)
    model = sf.Denoiser(net, sf.process.cosine(10), data=sf.DataSpec((2,)))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    cost = sf.planning.cost(model)
    products = sum(2 * weight.numel() for weight in net.parameters() if weight.ndim == 2)
    assert cost.evaluation == products
    assert cost.evaluation < cost.training <= 3 * cost.evaluation
    assert cost.kept > 0
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


def test_a_run_of_a_checkpoint_can_be_made_in_python(tmp_path):
    with pytest.raises(sf.InputError, match=r"the origin.*guided-difusion.*did you mean"):
        sf.interop.import_run("guided-difusion", "x.pt", tmp_path / "run")
