"""Results stay what they were, call by call, in every form of storage."""

from __future__ import annotations

import numpy as np
import pytest
from recorded_calls import FORMS, RECORDED_FROM, calls, recorded, results, same_bits

# Of numbers, where another machine's numpy and scipy round otherwise; on the machine that recorded
# them, all bits are the same. The logarithm of a p-value near 1 has an absolute error: worst 2e-19.
_RTOL, _ATOL = 1e-11, 1e-17

#: Of the calls, every fifth stays in `make test`.
N_PARTS = 5


def test_every_call_is_recorded():
    assert recorded().keys() == calls().keys()


@pytest.mark.sampled(every=N_PARTS)
@pytest.mark.parametrize("part", range(N_PARTS))
def test_results_are_those_recorded(part):
    kept, names = recorded(), {*[*calls()][part::N_PARTS]}
    for name, found in results(RECORDED_FROM, names.__contains__):
        expected = kept[name]
        assert [*found] == [*expected], name
        for column, values in found.items():
            if values.dtype.kind == "f":
                atol = _ATOL if column == "log10_p" else 0
                np.testing.assert_allclose(values, expected[column], _RTOL, atol, err_msg=name)
            else:
                np.testing.assert_array_equal(values, expected[column], err_msg=name)


@pytest.fixture(scope="module")
def in_memory():
    return dict(results(RECORDED_FROM))


def check(form, names, in_memory):
    for name, found in results(form, names.__contains__):
        assert not same_bits(found, in_memory[name]), name


@pytest.mark.thorough
@pytest.mark.parametrize("form", FORMS)
def test_a_form_of_storage_changes_no_bit_of_any_call(form, in_memory):
    check(form, {*calls()}, in_memory)
