"""Bad arguments of every public function, class and method: refused by name, or right."""

import pytest

from bad_arguments import check, of_layers, of_networks, of_ops

CASES = {**of_ops.CASES, **of_layers.CASES, **of_networks.CASES}


@pytest.mark.parametrize("name", CASES)
def test_bad_arguments_are_refused_by_name_and_good_ones_are_right(name):
    assert check(CASES[name]) > 0
