"""Where and in which numbers a picker's networks compute: what `auto` means here, and how a run keeps to it.

Other number formats give other scores, so a run whose micrographs are picked by several processes, on several
machines or on several days settles both once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar, Protocol, runtime_checkable

from cryopick.errors import SettingsError
from cryopick.inference.device import chosen_bfloat16, chosen_device, is_bfloat16_fast
from cryopick.inference.processor import cpu_model
from cryopick.inference.runtime import TORCH


@dataclass(frozen=True, kw_only=True)
class Computing:
    """What decides the last digits of a picker's scores, besides the model of the processor."""

    device: str = "cpu"
    """cpu, cuda or mps: the kind, without a card's number."""
    precision: str = ""
    """float32, bfloat16 or int8; "" where the picker has no such choice."""
    runtime: str = field(default="", compare=False)
    """The library that runs the network: OpenVINO or torch; "" where none does, or a run does not say. Two that compute
    in the same numbers differ by rounding alone, so a run goes on with another one, which is said."""

    @property
    def text(self) -> str:
        """Such as `on the CPU in int8`."""
        place = "on the CPU" if self.device == "cpu" else f"on {self.device}"
        return f"{place} in {self.precision}" if self.precision else place


@runtime_checkable
class ChoosesPrecision(Protocol):
    """A picker whose setting `device`, and `precision` where it has that, may be `auto`."""

    device: str

    def precision_on(self, device: str) -> str:
        """The number format that the picker, set as it is, computes in on `cpu`, `cuda` or the like.

        Raises
        ------
        SettingsError
            If it cannot compute there in the format that is asked for.
        """
        ...


class RunsNetworks:
    """Gives a picker whose networks torch runs, with settings `device` and `precision`, the method `precision_on`."""

    needs_extra: ClassVar[str] = "torch"
    precision: str

    def precision_on(self, device: str) -> str:
        """bfloat16 where that is asked for, or `auto` and fast on the device; else float32."""
        return "bfloat16" if chosen_bfloat16(device, self.precision) else "float32"

    def runtime_on(self, _device: str) -> str:
        """The library that runs the networks: torch, on every device."""
        return TORCH


def computing_here(picker: Any) -> Computing:
    """What the settings of a picker mean on this machine.

    A picker of another package that is no `ChoosesPrecision` computes as its settings have it, `auto` included.

    Raises
    ------
    SettingsError
        If its device is not there, or cannot compute as it is asked to.
    """
    if not isinstance(picker, ChoosesPrecision):
        return Computing(
            device=_kind(getattr(picker, "device", "cpu")), precision=str(getattr(picker, "precision", ""))
        )
    device = chosen_device(picker.device)
    precision = picker.precision_on(device)
    return Computing(device=_kind(device), precision=precision, runtime=runtime_of(picker, device))


def runtime_of(picker: Any, device: str) -> str:
    """The library that runs a picker's networks on a device; "" where it has none, or does not say."""
    return str(picker.runtime_on(device)) if hasattr(picker, "runtime_on") else ""


def pinned(picker: Any, computing: Computing | None) -> Any:
    """The picker with the words of `computing` in place of `auto`; the same one where `auto` means that here."""
    chooses = isinstance(picker, ChoosesPrecision) and is_dataclass(picker)
    if computing is None or not chooses:
        return picker
    own = {one.name for one in fields(picker)}
    given: dict[str, str] = {}
    if picker.device == "auto" and chosen_device("auto") != computing.device:
        given["device"] = computing.device
    if "precision" in own and getattr(picker, "precision", "") == "auto":
        device = given.get("device", chosen_device(picker.device))
        if picker.precision_on(device) != computing.precision:
            given["precision"] = computing.precision
    return replace(picker, **given) if given else picker


def why_not_here(picker: Any, computing: Computing) -> str:
    """Why this process cannot compute as a run was begun, in one clause that names no host; "" where it can.

    Such as `no int8 units`, with what would let it: `--precision float32 lets it join`.
    """
    try:
        here = computing_here(pinned(picker, computing))
    except SettingsError as error:
        return f"it cannot compute {computing.text}: {error}"
    if here != computing:
        return f"it computes {here.text}, not {computing.text}"
    is_chosen = getattr(picker, "precision", "") == "auto"
    if is_chosen and computing.precision == "bfloat16" and not is_bfloat16_fast(computing.device):
        return f"it has no units for bfloat16, so that it would be slow {computing.text}"
    return ""


def remedy(picker: Any, computing: Computing) -> str:
    """The options with which a run can be computed by any machine, where a picker has them; "" where it has none."""
    options = []
    if computing.device != "cpu" and getattr(picker, "device", None) is not None:
        options.append("--device cpu")
    if computing.precision not in ("", "float32") and getattr(picker, "precision", None) is not None:
        options.append("--precision float32")
    return " ".join(options)


def processor_of(picker: Any, computing: Computing | None) -> str:
    """The model of the processor that a picker computes on here."""
    own = str(getattr(picker, "device", ""))
    kind = "cpu" if computing is None else computing.device
    return processor_model(own if own.startswith(f"{kind}:") else kind)


@lru_cache(maxsize=8)
def processor_model(device: str = "cpu") -> str:
    """What the CPU or the graphics card calls itself; `unknown` where nobody says."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    if device != "cpu":
        return device
    return cpu_model()


def _kind(device: Any) -> str:
    return str(device).partition(":")[0]
