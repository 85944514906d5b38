"""The device and the number format that a network runs with."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from cryopick.errors import SettingsError
from cryopick.extras import is_installed, missing_extra, require_extra
from cryopick.inference.processor import multiplies_bfloat16
from cryopick.inference.runtime import require_runtime

_log = logging.getLogger(__name__)
PRECISIONS = ("auto", "float32", "bfloat16")
DEVICE_KINDS = ("cpu", "cuda", "mps")
CARD_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/nvhost-gpu", "/dev/dxg", "/dev/kfd")
"""What Linux has where there is a graphics card with its driver: NVIDIA's, of Jetson boards, under Windows, AMD's."""


def require_device(picker: Any) -> None:
    """Raise if the device that a picker is set to, or the library that runs it, is not there, before anything is read.

    Raises
    ------
    SettingsError
        As `chosen_device`; a picker without a device is not concerned.
    MissingExtraError
        As `require_runtime`, and where a graphics card is asked for without torch.
    """
    require_runtime(picker)
    device = getattr(picker, "device", "auto")
    if device not in ("auto", "cpu"):
        _require_present(device)


def require_accelerator(accelerator: str, *, devices: int) -> None:
    """Raise if the devices that a training is set to are not there, before anything is read.

    Parameters
    ----------
    accelerator : auto, cpu, gpu or mps, as training names kinds of devices; gpu is a CUDA card, else Apple's
    devices : how many

    Raises
    ------
    SettingsError
        As `chosen_device`.
    """
    if accelerator == "gpu":
        import torch

        kind = "mps" if torch.backends.mps.is_available() else "cuda"
        for index in range(devices):
            chosen_device(f"{kind}:{index}")
    elif accelerator == "mps":
        chosen_device("mps")


def chosen_device(device: str) -> str:
    """`auto` becomes cuda where there is one that works, else cpu; anything else stays, if it is there and works.

    Raises
    ------
    SettingsError
        If it is no device, or one that this machine does not have or cannot use.
    """
    if device == "cpu":
        return device
    if device == "auto":
        return _automatic_device()
    _require_present(device)
    if problem := _why_unusable(device):
        raise SettingsError(f"device {device}: is there but cannot be used ({problem}); --device cpu does without")
    return device


@lru_cache(maxsize=1)
def _automatic_device() -> str:
    """cuda where it works, else cpu; a card that is there in vain is told of, once."""
    count, _, complaint = cuda_devices()
    problem = _why_unusable("cuda") if count else complaint
    if problem:
        _log.warning("the graphics card cannot be used (%s), so the CPU is; --device cpu asks for that", problem)
    return "cuda" if count and not problem else "cpu"


def _require_present(device: str) -> None:
    """Raise `SettingsError` unless the machine has the device; it is not touched, which would take memory on it."""
    kind, _, number = device.partition(":")
    if kind not in DEVICE_KINDS or (":" in device and not (number.isascii() and number.isdecimal())):
        raise SettingsError(f"device {device!r}: expected auto, cpu, cuda, cuda:N (N a card's number) or mps")
    require_extra("torch", ("torch",), f"device {device}")
    import torch

    if kind == "mps" and not (torch.backends.mps.is_available() and int(number or 0) == 0):
        raise SettingsError(f"device {device}: this machine has no Apple graphics; --device auto takes what there is")
    if kind == "cuda":
        count, reason, complaint = cuda_devices()
        if count == 0:
            reason = complaint or reason
            raise SettingsError(
                f"device {device}: no usable CUDA graphics card here ({reason}); --device auto takes the CPU then, "
                "`cryopick doctor` tells what is there"
            )
        if int(number or 0) >= count:
            numbers = "cuda:0 is" if count == 1 else f"cuda:0 to cuda:{count - 1} are"
            raise SettingsError(f"device {device}: there is no such graphics card, {numbers} there")


def separate_environments(devices: Sequence[str]) -> list[dict[str, str]]:
    """The environment variables of processes that see one graphics card each, which is `cuda` to them.

    Parameters
    ----------
    devices : `cuda:0`, `cuda:1` and so on, as this process counts its cards

    Raises
    ------
    SettingsError
        If one is no such name, is there twice, or is no card that this process sees; it lists those.
    """
    for number, device in enumerate(devices):
        kind, _, index = device.partition(":")
        if kind != "cuda" or not (index.isascii() and index.isdecimal()):
            raise SettingsError(f"devices: {device!r}: expected names such as cuda:0,cuda:1")
        if device in devices[:number]:
            raise SettingsError(f"devices: {device} is named twice; two workers share each card anyway")
    count, reason, complaint = cuda_devices()
    missing = [device for device in devices if int(device.partition(":")[2]) >= count]
    if missing and count == 0:
        raise SettingsError(f"devices: no {missing[0]}: no usable CUDA graphics card here ({complaint or reason})")
    if missing:
        there = ", ".join(f"cuda:{index}" for index in range(count))
        raise SettingsError(
            f"devices: no {', '.join(missing)} here; there are {there}"
            if count > 1
            else f"devices: no {', '.join(missing)} here; there is {there} alone"
        )
    # this process may itself see some of the machine's cards only, under other numbers or by names that are no numbers
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    numbers = [int(device.partition(":")[2]) for device in devices]
    return [{"CUDA_VISIBLE_DEVICES": visible[number] if visible else str(number)} for number in numbers]


@contextmanager
def current_device(device: str) -> Iterator[None]:
    """Let `cuda` mean this card, as `cuda:1`, to the calling thread; the card need not be the first."""
    import torch

    with torch.cuda.device(device):
        yield


def cuda_devices() -> tuple[int, str, str]:
    """CUDA devices that torch sees; where there is none, why; and what torch complained of, such as an old driver."""
    import warnings

    if not is_installed("torch"):
        complaint = f"there is a graphics card, but {missing_extra('torch', 'using it')}" if _may_have_card() else ""
        return 0, "torch, which uses them, is not installed", complaint
    if not _may_have_card():  # torch takes two seconds to say the same
        return 0, "there is no driver or no card", ""
    import torch

    if not torch.backends.cuda.is_built():  # type: ignore[no-untyped-call]  # of torch
        return 0, "this build of torch is for CPUs only", ""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    complaint = " ".join(str(caught[-1].message).split(". ")[0].split()) if caught else ""
    return count, "torch finds no driver or no card", complaint


def _may_have_card() -> bool:
    """False where it is plain, without torch, that there is no card of NVIDIA or AMD, which torch calls cuda."""
    system = platform.system()
    return any(map(os.path.exists, CARD_FILES)) if system == "Linux" else system != "Darwin"


@lru_cache(maxsize=16)
def _why_unusable(device: str) -> str:
    """Multiply something small there: too old a card, too new a driver, no memory and a busy card show up only so."""
    import torch

    try:
        ones = torch.ones(8, 8, device=device)
        product = float((ones @ ones)[0, 0])
    except Exception as error:  # of torch, of the driver, of the card: all that is needed is the reason
        return " ".join(str(error).strip().split("\n")[0].split()) or type(error).__name__
    return "" if product == 8.0 else f"it computes wrong products: {product:g} for 8"


def chosen_bfloat16(device: str, precision: str) -> bool:
    """Whether to run in bfloat16 on a device; `auto` does where the hardware has it.

    Raises
    ------
    SettingsError
        If `precision` is none of `PRECISIONS`.
    """
    if precision not in PRECISIONS:
        raise SettingsError(f"precision is {precision!r}, expected {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}")
    return precision == "bfloat16" or (precision == "auto" and is_bfloat16_fast(device))


def is_bfloat16_fast(device: str) -> bool:
    """True where the hardware multiplies bfloat16; elsewhere it is emulated and slower than float32."""
    if device == "cpu":
        return multiplies_bfloat16()
    import torch

    return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
