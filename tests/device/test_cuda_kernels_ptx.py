"""Tests of test_cuda_kernels.py again, on the device that runs PTX and looks for races."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import test_cuda_kernels
from emulated.build import needs_compiler
from nvrtc import needs_nvrtc
from ptx.device import PtxDevice
from test_cuda_kernels import (  # noqa: F401
    test_a_gene_in_several_pieces,
    test_anderson_darling_around_a_warp,
    test_buffers_that_divide_nothing,
    test_contrasts,
    test_distinct_values_are_those_of_the_reference_kernels,
    test_distinct_values_of_a_pool,
    test_empty_references_and_targets,
    test_fdr_around_tiles,
    test_groups_of_every_length,
    test_indices_on_both_sides_of_16_bits,
    test_keys_of_every_type,
    test_logarithms,
    test_moments_do_not_depend_on_the_order_of_the_cells,
    test_places_beyond_32_bits,
    test_pools_of_several_tiles,
    test_references_beyond_shared_memory,
    test_segments_of_every_length,
    test_shapes_change_no_bit_of_a_pool,
    test_targets_that_overlap,
    test_wide_sums_are_rounded_once,
)

pytestmark = [needs_compiler, needs_nvrtc, pytest.mark.thorough]


def opened(**options: Any) -> PtxDevice:
    return PtxDevice(**({"races": True, "seed": 1} | options))


@pytest.fixture(scope="module", autouse=True)
def _ptx_devices() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_cuda_kernels, "EmulatedDevice", opened)
        yield
