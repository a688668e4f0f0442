import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.orchestrator.experiment import ExperimentSpec, MessageTemplate, ModelTarget, ParameterAxis, PromptTemplate
from services.orchestrator.product import CellAddress, Product, point_values

products = st.builds(Product, *[st.integers(1, 7)] * 5)


@given(products, st.data())
def test_address_and_index_are_inverse(product: Product, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, product.cells - 1))

    address = product.address(index)

    assert product.index(address) == index
    assert address.prompt < product.prompts
    assert address.row < product.rows
    assert address.model < product.models
    assert address.point < product.points
    assert address.repeat < product.repeats


@given(products)
def test_every_address_occurs_exactly_once_in_order(product: Product) -> None:
    addresses = [product.address(index) for index in range(product.cells)]

    assert addresses == sorted(set(addresses))


def test_a_million_million_cells_cost_nothing_to_address() -> None:
    product = Product(1000, 100_000, 100, 10, 10)

    assert product.address(product.cells - 1) == CellAddress(999, 99_999, 99, 9, 9)


@pytest.mark.parametrize("index", [-1, 4])
def test_an_index_outside_the_product_is_an_error(index: int) -> None:
    with pytest.raises(IndexError, match="4 cells"):
        Product(1, 1, 2, 2, 1).address(index)


def test_the_product_of_a_spec() -> None:
    prompt = PromptTemplate("p", (MessageTemplate("user", "x"),))
    grid = (ParameterAxis("temperature", (0.0, 1.0)), ParameterAxis("seed", (1, 2, 3)))
    spec = ExperimentSpec(prompts=(prompt,), models=(ModelTarget("mock/a"),), grid=grid, repeats=4)

    product = Product.of(spec)

    assert product == Product(prompts=1, rows=1, models=1, points=6, repeats=4)
    assert [point_values(grid, point) for point in range(4)] == [
        {"temperature": 0.0, "seed": 1},
        {"temperature": 0.0, "seed": 2},
        {"temperature": 0.0, "seed": 3},
        {"temperature": 1.0, "seed": 1},
    ]
