import pytest
import torch
from step1 import linear
from step1.linear import Linear

pytestmark = pytest.mark.unit

SHAPES = [(384, 256), (96, 64), (5, 48), (1, 256), (130, 1000)]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def with_and_without_packing():
    return pytest.mark.parametrize("packing", ["packed where it may be", "never packed"])


@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
@with_and_without_packing()
def test_a_row_never_depends_on_the_rows_beside_it(outputs, inputs, packing, monkeypatch):
    if packing == "never packed":
        monkeypatch.setattr(linear, "_packing_is_invariant", lambda *_: False)
    product = Linear(random(outputs, inputs))
    x = random(300, inputs)
    whole = product(x)
    for rows in (1, 2, 3, 6, 11, 16, 40, 150):
        for first in (0, 300 - rows):
            assert torch.equal(product(x[first : first + rows]), whole[first : first + rows])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("batch_invariant", [True, False])
@with_and_without_packing()
def test_the_product_is_the_product(dtype, batch_invariant, packing, monkeypatch):
    if packing == "never packed":
        monkeypatch.setattr(linear, "_packing_is_invariant", lambda *_: False)
    weight, x = random(40, 24).to(dtype), random(7, 24).to(dtype)
    y = Linear(weight, batch_invariant=batch_invariant)(x)
    assert y.dtype == dtype
    exact = x.double() @ weight.double().T
    rough = dtype == torch.bfloat16
    assert torch.allclose(y.double(), exact, rtol=1e-2 if rough else 1e-5, atol=1e-5)


def test_a_weight_may_be_a_part_of_a_larger_tensor():
    whole, x = random(64, 32), random(3, 32)
    part = Linear(whole[8:24])(x)
    assert torch.allclose(part, x @ whole[8:24].T, atol=1e-5)


def test_a_weight_in_use_can_no_longer_be_changed():
    product = Linear(random(8, 8))
    product.weight.zero_()
    assert not product(random(2, 8)).any()
    with pytest.raises(RuntimeError, match="in use"):
        product.weight.zero_()
