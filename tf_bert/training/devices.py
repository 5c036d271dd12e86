"""The device that a rank computes on: its peak speed, from data sheets or measured, and its memory."""

import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass

import tensorflow as tf

COMPUTE_DTYPES = {"float32": "float32", "mixed_bfloat16": "bfloat16", "mixed_float16": "float16"}
"""Keras policy -> dtype of its matrix products."""

# Dense peaks in TFLOP/s, without sparsity: float32 outside of tensor cores, TF32, float16 and bfloat16 with float32
# accumulation. From NVIDIA's data sheets of each card (halved where a sheet gives only the number with sparsity):
# "V100 Tensor Core GPU", "T4 Tensor Core GPU", "A10 Tensor Core GPU", "A100 Tensor Core GPU", "L4 Tensor Core GPU",
# "L40S", "H100 Tensor Core GPU" (SXM, PCIe in its first edition, NVL), "H200 Tensor Core GPU" (SXM, NVL).
# The first pattern that is found in the name that the driver gives counts.
_PEAKS: tuple[tuple[str, dict[str, float]], ...] = (
    (r"V100-PCIE", {"float32": 14.0, "float16": 112.0}),
    (r"V100", {"float32": 15.7, "float16": 125.0}),
    (r"\bT4\b", {"float32": 8.1, "float16": 65.0}),
    (r"\bA10\b", {"float32": 31.2, "tf32": 62.5, "float16": 125.0, "bfloat16": 125.0}),
    (r"\bA100\b", {"float32": 19.5, "tf32": 156.0, "float16": 312.0, "bfloat16": 312.0}),
    (r"\bL4\b", {"float32": 30.3, "tf32": 60.0, "float16": 121.0, "bfloat16": 121.0}),
    (r"\bL40S\b", {"float32": 91.6, "tf32": 183.0, "float16": 362.0, "bfloat16": 362.0}),
    (r"\bH100 PCIe", {"float32": 51.0, "tf32": 378.0, "float16": 756.0, "bfloat16": 756.0}),
    (r"\b(H100|H200) NVL", {"float32": 60.0, "tf32": 417.5, "float16": 835.5, "bfloat16": 835.5}),
    (r"\b(H100|H200)\b", {"float32": 67.0, "tf32": 494.5, "float16": 989.5, "bfloat16": 989.5}),
)


@dataclass(frozen=True)
class Device:
    """What one rank computes on."""

    name: str
    """Of the GPU as its driver gives it, or CPU."""
    peak_flops: float
    """Floating-point operations per second in the matrix products of the run's precision."""
    peak_source: str
    """Where `peak_flops` is from: data sheet, or measured."""
    memory_bytes: int | None
    """Memory of the GPU, or of the machine, which all ranks on it share; None if it cannot be found out."""

    def __str__(self) -> str:
        return f"{self.name}, peak {format_flops(self.peak_flops)}/s ({self.peak_source})"


def find_device(precision: str) -> Device:
    """The device of this process: its first visible GPU, else the CPU. Measuring an unknown one takes about a second.

    Args:
      precision: Keras policy of the run.
    """
    gpus = tf.config.get_visible_devices("GPU")
    name = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU") if gpus else "CPU"
    memory = _gpu_memory(gpus[0].name) if gpus else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    dtype = COMPUTE_DTYPES[precision]
    # TensorFlow runs float32 products as TF32 where there is TF32, unless told otherwise.
    uses_tf32 = dtype == "float32" and tf.config.experimental.tensor_float_32_execution_enabled()
    known = data_sheet_peak(name, "tf32") if uses_tf32 else None
    known = known or data_sheet_peak(name, dtype)
    if known:
        return Device(name, known, "data sheet", memory)
    return Device(name, measure_peak(dtype, 8192 if gpus else 1024), f"measured, {dtype} matrix product", memory)


def data_sheet_peak(name: str, dtype: str) -> float | None:
    """Operations per second of a known device; None if it, or the dtype on it, is not in the table.

    Args:
      name: as the driver gives it, e.g. NVIDIA A100-SXM4-80GB.
      dtype: float32, tf32, float16 or bfloat16.
    """
    peaks = next((peaks for pattern, peaks in _PEAKS if re.search(pattern, name)), {})
    return peaks[dtype] * 1e12 if dtype in peaks else None


def measure_peak(dtype: str, size: int, repetitions: int = 5) -> float:
    """Operations per second of the fastest of a few products of two square matrices, after one to warm up."""
    matrix = tf.ones((size, size), dtype)
    product = tf.function(lambda x: tf.matmul(x, x)[0, 0])
    seconds = []
    for _ in range(repetitions + 1):
        began = time.perf_counter()
        product(matrix).numpy()  # a single number: the result's way back from a GPU does not count
        seconds.append(time.perf_counter() - began)
    return 2.0 * size**3 / min(seconds[1:])


def _gpu_memory(device_name: str) -> int | None:
    """Bytes in all, as nvidia-smi tells; TensorFlow only knows what it has taken."""
    if not shutil.which("nvidia-smi"):
        return None
    index = int(device_name.rpartition(":")[2])
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    identifier = visible[index] if index < len(visible) and visible[index] else str(index)
    query = ["nvidia-smi", f"--id={identifier}", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    answer = subprocess.run(query, capture_output=True, text=True)
    return int(answer.stdout) << 20 if answer.returncode == 0 and answer.stdout.strip().isdigit() else None


def format_flops(count: float) -> str:
    """A number of operations with a fitting unit: 312 TFLOP, 1.23 ZFLOP."""
    for exponent, prefix in ((21, "Z"), (18, "E"), (15, "P"), (12, "T"), (9, "G")):
        if count >= 10**exponent:
            return f"{count / 10**exponent:.3g} {prefix}FLOP"
    return f"{count / 1e6:.3g} MFLOP"
