"""Faults in the synchronization and layouts of the fused convolution: the emulator detects each one."""

import importlib.util
from pathlib import Path

import pytest
import torch

KERNEL = "modulated_conv2d_wgmma.cu"
FAULTS = {  # what is replaced in the kernel, and by what
    "none": ("", ""),
    "no wait for weights": ("block.weights.wait_full(weight);", ""),
    "no wait for the input": ("inputs.wait_full(input);", ""),
    "no wait for a free stage of weights": ("block.weights.wait_empty(item);", ""),
    "no wait for a free stage of the input": ("if (any) inputs.wait_empty(item);", ""),
    "the phase before": ("return item / STAGES & 1;", "return ~item / STAGES & 1;"),
    "a stage is free before its products have ended": ("warpgroup_wait<1>();", ""),
    "unpublished input": ("publish_shared();", ""),
    "no fence": ("warpgroup_fence();", ""),
    "wrong swizzle of the weights": ("Swizzle::bytes64", "Swizzle::none"),
    "planes of the input next to each other": ("Swizzle::none, PLANE,", "Swizzle::none, PLANE - 32,"),
    "rows of the result exchanged": ("t * 4 + i % 2 * 2]", "t * 4 + (1 - i % 2) * 2]"),
    "the filter does not wait for all sums": ("    meet(0);\n", ""),
    "new sums do not wait for the filter": ("    meet(1);\n", ""),
}
CASES = [
    {"n": 2, "i": 104, "o": 32, "h": 17, "w": 16},  # weights pass through the ring
    {"n": 2, "i": 40, "o": 24, "h": 18, "w": 17},  # weights stay
    {"n": 2, "i": 40, "o": 40, "h": 15, "w": 15, "up": 2},
]


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_detected(harness, tmp_path, fault):
    spec = importlib.util.spec_from_file_location("kernel_tests", Path(__file__).with_name("test_kernels.py"))
    kernels = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kernels)
    source, (right, wrong) = (harness.CSRC / KERNEL).read_text(), FAULTS[fault]
    assert right in source
    (tmp_path / KERNEL).write_text(source.replace(right, wrong) if right else source)
    emulator = harness.Emulator([harness.CSRC / "modulated_conv2d.cu", tmp_path / KERNEL], sanitize=False)
    detected = []
    for case, seed in [(case, seed) for case in CASES for seed in range(3)]:
        fields, out, exact = kernels.modulated_call(torch.float16, **case, k=3, wgmma=1)
        try:
            emulator.run([("modulated_conv2d", fields)], seed=seed)
            kernels.assert_close(out, exact, case)
        except (harness.EmulatorError, AssertionError):
            detected.append(case)
    assert bool(detected) == (fault != "none")
