"""Peaks of devices: known ones by the names that their driver gives, others measured."""

import pytest

from tf_bert.training.devices import data_sheet_peak, find_device, format_flops, measure_peak


@pytest.mark.parametrize(
    ("name", "dtype", "tera"),
    [
        ("Tesla V100-SXM2-16GB", "float16", 125.0),
        ("Tesla V100-PCIE-32GB", "float16", 112.0),
        ("Tesla T4", "float32", 8.1),
        ("NVIDIA A10", "bfloat16", 125.0),
        ("NVIDIA A100-SXM4-80GB", "bfloat16", 312.0),
        ("NVIDIA A100-PCIE-40GB", "tf32", 156.0),
        ("NVIDIA L4", "float16", 121.0),
        ("NVIDIA L40S", "float16", 362.0),
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989.5),
        ("NVIDIA H100 PCIe", "bfloat16", 756.0),
        ("NVIDIA H200", "float32", 67.0),
        ("NVIDIA H200 NVL", "float16", 835.5),
    ],
)
def test_known_devices(name, dtype, tera):
    assert data_sheet_peak(name, dtype) == tera * 1e12


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("NVIDIA A10G", "float16"),  # another chip than the A10
        ("NVIDIA GH200 480GB", "float16"),
        ("NVIDIA GeForce RTX 4090", "float32"),
        ("Tesla V100-SXM2-16GB", "bfloat16"),  # its tensor cores know none
        ("Tesla T4", "tf32"),
        ("CPU", "float32"),
    ],
)
def test_others_have_no_data_sheet_here(name, dtype):
    assert data_sheet_peak(name, dtype) is None


def test_a_peak_is_measured_by_a_matrix_product():
    # The slowest processor that TensorFlow runs on does a billion operations a second, the fastest CPU below 1e15.
    assert 1e8 < measure_peak("float32", 256) < 1e15


def test_this_machine_is_found_with_its_memory():
    device = find_device("float32")
    assert device.peak_flops > 1e8 and device.memory_bytes > 1 << 28
    assert str(device).startswith(f"{device.name}, peak ") and device.peak_source in str(device)


@pytest.mark.parametrize(
    ("count", "text"),
    [(312e12, "312 TFLOP"), (1.234e21, "1.23 ZFLOP"), (5.1e18, "5.1 EFLOP"), (2e9, "2 GFLOP"), (3e5, "0.3 MFLOP")],
)
def test_counts_of_operations_have_fitting_units(count, text):
    assert format_flops(count) == text
