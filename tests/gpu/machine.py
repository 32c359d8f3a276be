"""What the machine is, and whether the parts of the suite that know kinds of devices work on it."""

from __future__ import annotations

import importlib
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version

import torch

from engine.checkpoints.host_copy import Snapshot
from engine.config.training import TrainingConfig
from engine.devices.kinds import DeviceNumbers, device_kind
from engine.devices.precision import computes_bf16
from engine.distributed.gpus import architecture_fault
from tests.gpu.findings import Findings

IMPORTED = {
    "torchvision": "torchvision",
    "timm": "timm",
    "numpy": "numpy",
    "pillow": "PIL",
    "pydantic": "pydantic",
    "pyyaml": "yaml",
    "safetensors": "safetensors",
    "scikit-learn": "sklearn",
    "matplotlib": "matplotlib",
    "tensorboard": "tensorboard",
    "tqdm": "tqdm",
    "submitit": "submitit",
    "pycocotools": "pycocotools.mask",
    "faster-coco-eval": "faster_coco_eval",
}
"""What the suite needs besides torch, and a module of each."""
OURS = (
    "classification.task",
    "detection.task",
    "diffusion.task",
    "engine.commands.train",
    "swin",
    "tools.check.__main__",
    "tools.submit.__main__",
)


def environment(findings: Findings) -> None:
    """Imports, driver and architectures."""
    findings.figure("python", platform.python_version())
    findings.figure("torch", torch.__version__)
    for package, module in IMPORTED.items():
        with findings.part(package):
            importlib.import_module(module)
        try:
            findings.figure(package, version(package))
        except PackageNotFoundError:
            findings.figure(package, "of unknown version")
    for module in OURS:
        with findings.part(module):
            importlib.import_module(module)
    if findings.device != "cuda":
        return
    capability, built_for = torch.cuda.get_device_capability(), torch.cuda.get_arch_list()
    name = torch.cuda.get_device_name()
    findings.figure("card", f"{name} ({capability[0]}.{capability[1]})")
    findings.figure("memory GB", torch.cuda.get_device_properties(0).total_memory / 1e9)
    findings.figure("architectures", " ".join(built_for))
    findings.figure("CUDA", str(torch.version.cuda))
    findings.figure("cuDNN", str(torch.backends.cudnn.version()))
    with findings.part("NCCL"):
        findings.figure("NCCL", ".".join(map(str, torch.cuda.nccl.version())))
    fault = architecture_fault(name, capability, built_for)
    findings.check(fault is None, str(fault))
    findings.check(computes_bf16(torch.device("cuda")) == (capability >= (8, 0)), "bf16 is judged wrongly")
    with findings.part("driver"):
        findings.figure("driver", _driver() if shutil.which("nvidia-smi") else "unknown: there is no nvidia-smi")


def _driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(query, check=True, stdout=subprocess.PIPE, text=True, timeout=20).stdout.split()[0]


def copies(findings: Findings) -> None:
    """Settings of torch, numbers and states on their way to the host, page-locked memory."""
    device = torch.device(findings.device)
    with findings.part("settings"):
        _settings(findings, device)
    with findings.part("numbers"):
        values = torch.arange(3.0, device=device)
        busy = torch.randn(256 if findings.small else 8192, 256 if findings.small else 8192, device=device)
        for _ in range(5):
            busy = busy @ busy.softmax(0)
        values += busy.sum() * 0
        numbers = DeviceNumbers(values)
        findings.check(numbers.read() == [0.0, 1.0, 2.0], "numbers were read before they were there")
    with findings.part("snapshot"):
        tree = {"a": torch.randn(1000, 1000, device=device), "b": [torch.arange(7, device=device).view(7, 1).T]}
        snapshot = Snapshot()
        for _ in range(2):  # the second copy uses the memory of the first
            tree["a"].add_(1)
            copied = snapshot.take(tree)
            findings.check(copied["a"].device.type == "cpu", "a snapshot lies on the device")
            same = torch.equal(copied["a"], tree["a"].cpu()) and torch.equal(copied["b"][0], tree["b"][0].cpu())
            findings.check(same, "a snapshot differs from what was copied")
        findings.check(copied["a"].is_pinned() == (device.type == "cuda"), "a snapshot is not in page-locked memory")


def _settings(findings: Findings, device: torch.device) -> None:
    kind = device_kind(device)
    findings.figure("backend", kind.backend)
    for deterministic in (True, False):  # in this order: the last one's choice of kernels holds in what follows
        kind.set_up(TrainingConfig(deterministic=deterministic))
        if device.type == "cuda":
            cudnn = torch.backends.cudnn
            findings.check(cudnn.allow_tf32 != deterministic, f"TF32 in cuDNN with deterministic={deterministic}")
            findings.check(cudnn.benchmark != deterministic, f"cuDNN's search with deterministic={deterministic}")
            product = torch.get_float32_matmul_precision()
            findings.check((product == "highest") == deterministic, f"products are {product}")
