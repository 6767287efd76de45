import pytest

from app.costs.dimensions import DIMENSIONS, read_dimensions
from app.errors import ConfigurationError


def test_dimensions_come_with_commas_or_one_by_one_and_each_once() -> None:
    expected = ("tenant", "model", "label:team")

    assert read_dimensions(["tenant,model", "label:team", "model"]) == expected
    assert read_dimensions(["tenant", " model , label:team,"]) == expected
    assert read_dimensions(DIMENSIONS) == tuple(DIMENSIONS)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["tenent"], "no dimension 'tenent'; did you mean 'tenant'"),
        (["model,xyz"], "no dimension 'xyz'"),
        (["label:"], "no label can have the key of 'label:'"),
        (["label:A b"], "no label can have the key of 'label:A b'"),
        ([","], "give a dimension of the costs"),
    ],
)
def test_an_unknown_dimension_is_refused(given: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read_dimensions(given)
