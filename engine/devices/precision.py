"""Arithmetic of a run: which type autocast uses, and whether gradients are scaled."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Precision:
    """A resolved precision on one device."""

    name: str
    """fp32, bf16 or fp16."""
    device_type: str

    @property
    def dtype(self) -> torch.dtype:
        """Returns the type that forward passes compute in."""
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.name]

    def autocast(self) -> AbstractContextManager[None]:
        """Returns the context of every forward pass; it does nothing in fp32."""
        return torch.autocast(self.device_type, dtype=self.dtype, enabled=self.name != "fp32")

    def scaler(self) -> torch.amp.GradScaler:
        """Returns what scales the loss for fp16's narrow range; for the others it passes values through."""
        return torch.amp.GradScaler(self.device_type, enabled=self.name == "fp16")


def resolve_precision(name: str, device: torch.device) -> Precision:
    """Returns what ``training.precision`` means on ``device``: ``auto`` is bf16 where that is native, else fp32."""
    if name == "auto":
        name = "bf16" if computes_bf16(device) else "fp32"
    return Precision(name, device.type)


def fp16_hint(name: str, device: torch.device) -> str:
    """Returns what to try where `auto` is fp32 on a GPU whose tensor cores compute in fp16; empty elsewhere."""
    if name != "auto" or device.type != "cuda" or computes_bf16(device):
        return ""
    if torch.cuda.get_device_capability(device) < (7, 0):
        return ""
    return (
        f"training.precision: auto is fp32 on {torch.cuda.get_device_name(device)}, which does not compute in bf16; "
        "training.precision=fp16 is several times as fast there"
    )


def computes_bf16(device: torch.device) -> bool:
    """Returns whether matrix products in bf16 run on the device's own units (emulated bf16 is slower than fp32)."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # since torch 2.10
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
