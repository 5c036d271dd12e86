"""GPUs of Azure's virtual machines, for the sizes that train.

Source: the pages "NC", "ND" and "NV family" of Azure's size documentation. NV sizes with a part of a GPU count one.
"""

from tf_bert.errors import UsageError

GPUS = {
    "Standard_NC6": 1,
    "Standard_NC12": 2,
    "Standard_NC24": 4,
    "Standard_NC24r": 4,
    "Standard_NC6s_v2": 1,
    "Standard_NC12s_v2": 2,
    "Standard_NC24s_v2": 4,
    "Standard_NC24rs_v2": 4,
    "Standard_NC6s_v3": 1,
    "Standard_NC12s_v3": 2,
    "Standard_NC24s_v3": 4,
    "Standard_NC24rs_v3": 4,
    "Standard_NC4as_T4_v3": 1,
    "Standard_NC8as_T4_v3": 1,
    "Standard_NC16as_T4_v3": 1,
    "Standard_NC64as_T4_v3": 4,
    "Standard_NC24ads_A100_v4": 1,
    "Standard_NC48ads_A100_v4": 2,
    "Standard_NC96ads_A100_v4": 4,
    "Standard_NC40ads_H100_v5": 1,
    "Standard_NC80adis_H100_v5": 2,
    "Standard_ND6s": 1,
    "Standard_ND12s": 2,
    "Standard_ND24s": 4,
    "Standard_ND24rs": 4,
    "Standard_ND40rs_v2": 8,
    "Standard_ND96asr_v4": 8,
    "Standard_ND96amsr_A100_v4": 8,
    "Standard_ND96isr_H100_v5": 8,
    "Standard_ND96isr_H200_v5": 8,
    "Standard_NV6": 1,
    "Standard_NV12": 2,
    "Standard_NV24": 4,
    "Standard_NV12s_v3": 1,
    "Standard_NV24s_v3": 2,
    "Standard_NV48s_v3": 4,
    "Standard_NV6ads_A10_v5": 1,
    "Standard_NV12ads_A10_v5": 1,
    "Standard_NV18ads_A10_v5": 1,
    "Standard_NV36ads_A10_v5": 1,
    "Standard_NV36adms_A10_v5": 1,
    "Standard_NV72ads_A10_v5": 2,
}
_BY_LOWER_CASE = {size.lower(): count for size, count in GPUS.items()}


def gpus_of(vm_size: str) -> int | None:
    """GPUs of one machine of this size, upper and lower case alike; None for a size that is not in the table."""
    return _BY_LOWER_CASE.get(vm_size.lower())


def check_processes(vm_size: str, processes_per_node: int) -> None:
    """Raises `UsageError` if a machine of this size has fewer GPUs than processes; unknown sizes pass."""
    gpus = gpus_of(vm_size)
    if gpus is not None and processes_per_node > gpus:
        raise UsageError(
            f"processes_per_node is {processes_per_node}, but a {vm_size} has {gpus} GPU{'s' * (gpus > 1)}, and every "
            f"process takes one; set it to {gpus}, or choose a larger vm_size"
        )
