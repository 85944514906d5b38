"""The simulated crops that all networks learn from: made once, kept on disk, and used several times, turned.

A crop costs about ten milliseconds, as much as a training step on it. Trainings therefore share one bank of crops.
What a crop shows depends on the settings and its number alone, whether it was read or made.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property, lru_cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import OutputError, SettingsError
from cryopick.processing.ctf import CtfParameters
from cryopick.processing.scale import NOMINAL_PARTICLE_PX
from cryopick.simulation import SIMULATION_VERSION
from cryopick.simulation.crops import Crop, CropGenerator, CropRanges
from cryopick.simulation.micrograph_crops import MicrographCrops
from cryopick.simulation.recipe import (
    DetectorRanges,
    DirtRanges,
    IceRanges,
    LayoutRanges,
    LookRanges,
    OpticsRanges,
    Recipe,
)
from cryopick.training.workers import WORKER_START, prepare_worker

KEPT_SHARDS = 2
CYCLE = 20
"""Crops per cycle of kinds, so that every share is exact and known from the number."""
NEAR, FAR = (0.7, 1.6), (0.35, 3.5)
"""Range of the particles' diameter over the nominal one, log-uniform; thin particles are best seen enlarged."""
MICROGRAPH_RECIPE = Recipe(
    layout=LayoutRanges(
        coverage=(0.06, 0.42), spacing_diameters=(0.85, 1.25), clumped_probability=0.1, packed_probability=0.05
    ),
    ice=IceRanges(thickness_angstrom=(200.0, 600.0), gradient=(0.0, 0.3), lens=(0.0, 0.2), waviness=(0.0, 0.02)),
    dirt=DirtRanges(
        gold_probability=0.02, crystalline_probability=0.02, fibre_probability=0.03, aggregate_probability=0.1
    ),
    optics=OpticsRanges(defocus_um=(0.8, 3.0), b_factor_angstrom2=(40.0, 150.0), phase_plate_probability=0.02),
    detector=DetectorRanges(gain_residue=(0.0, 0.0), border_probability=0.05, dead_line_probability=0.01),
    look=LookRanges(
        low_pass_probability=0.12,
        coarser_probability=0.02,
        high_pass_probability=0.04,
        denoise_probability=0.04,
        eight_bit_probability=0.2,
        jpeg_probability=0.05,
    ),
)
"""Of crops that are whole micrographs: what people keep for picking, most of it raw. The other crops show the rest."""
MICROGRAPH_SNR = (4.5, 18.0)
MICROGRAPH_NEAR = (0.65, 1.6)
"""Range of the particles' diameter over the nominal one, log-uniform: that at which they are to be picked."""
_OPTICS = tuple(one.name for one in fields(CtfParameters))


def crop_folder() -> Path:
    """Where simulated crops are kept: `CRYOPICK_CROPS`, else the user's cache folder. It may be deleted at any time."""
    given = os.environ.get("CRYOPICK_CROPS")
    cache = os.environ.get("XDG_CACHE_HOME")
    return Path(given) if given else (Path(cache) if cache else Path.home() / ".cache") / "cryopick" / "crops"


@dataclass
class SimulatedCrops:
    """An endless sequence of crops; the first `count` are distinct, later ones are those again, shuffled and turned.

    Four kinds are mixed: whole simulated micrographs, resampled, and three that are painted at working scale: crowded
    ones with everything that makes picking hard, gentle ones like most published sets, and ones whose particles are
    much smaller or larger than nominal (`NOMINAL_PARTICLE_PX`).

    Parameters
    ----------
    crop_px : side of a crop
    far_scale_share : share of crops whose particles have any size from 0.35 to 3.5 of nominal; in the others they have
        0.7 to 1.6 of it
    micrograph_share : share of crops that are whole simulated micrographs, resampled
    seed : of everything; trainings use 1, validations other ones
    count : distinct crops; 0 makes every crop anew and keeps none
    shard_crops : crops per file
    """

    crop_px: int = 224
    far_scale_share: float = 0.3
    seed: int = 1
    count: int = 24_576
    shard_crops: int = 256
    micrograph_share: float = 0.0
    _shards: OrderedDict[int, list[Crop]] = field(default_factory=OrderedDict, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("far_scale_share", "micrograph_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingsError(f"{name} is {getattr(self, name)}, expected 0 to 1")
        if self.far_scale_share + self.micrograph_share > 1:
            raise SettingsError("far_scale_share and micrograph_share are more than 1 together")
        if self.count < 0 or self.count % self.shard_crops:
            raise SettingsError(f"count is {self.count}, expected a multiple of {self.shard_crops}, or 0")

    def __getstate__(self) -> dict[str, Any]:
        return {one.name: getattr(self, one.name) for one in fields(self) if one.init and not one.name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _shards=OrderedDict())

    def crop(self, index: int) -> Crop:
        """Crop `index`, from 0."""
        if self.count == 0:
            return self._simulate(index)
        turn, position = divmod(index, self.count)
        if turn == 0:
            return self.shard(position // self.shard_crops)[position % self.shard_crops]
        shard = int(self._order(self.count // self.shard_crops, turn)[position // self.shard_crops])
        inside = int(self._order(self.shard_crops, turn, shard)[position % self.shard_crops])
        rng = np.random.default_rng((self.seed, 7, index))
        return turned(self.shard(shard)[inside], quarter_turns=int(rng.integers(4)), is_mirrored=bool(rng.integers(2)))

    def shard(self, number: int) -> list[Crop]:
        """Crops `number * shard_crops` onwards, from disk or made and written there."""
        if number not in self._shards:
            self.make_shard(number)
            self._shards[number] = _read_shard(self._shard_path(number))
            while len(self._shards) > KEPT_SHARDS:
                self._shards.popitem(last=False)
        self._shards.move_to_end(number)
        return self._shards[number]

    def keep(self, crops: int, tell: Callable[[int, int], None]) -> None:
        """Makes what is not on disk yet of the first `crops`, on all cores; `tell` gets how many of how many stand."""
        shards = -(-min(crops, self.count) // self.shard_crops) if self.count else 0
        missing = [number for number in range(shards) if not self._shard_path(number).is_file()]
        if not missing:
            return
        import torch
        from torch.utils.data import DataLoader

        makers: Any = _ShardMaker(self)
        done = shards - len(missing)
        tell(done * self.shard_crops, shards * self.shard_crops)
        loader = DataLoader(
            makers,
            sampler=missing,
            batch_size=None,
            num_workers=min(torch.get_num_threads(), len(missing)),
            worker_init_fn=prepare_worker,
            multiprocessing_context=WORKER_START,
        )
        for error in loader:
            if error is not None:
                raise error
            done += 1
            tell(done * self.shard_crops, shards * self.shard_crops)

    def _shard_path(self, number: int) -> Path:
        return crop_folder() / self._key / f"{number:05d}.npz"

    def make_shard(self, number: int) -> None:
        """Writes a shard to disk, unless it is there."""
        path = self._shard_path(number)
        if not path.is_file():
            _write_shard(path, [self._simulate(number * self.shard_crops + i) for i in range(self.shard_crops)])

    def _order(self, size: int, *key: int) -> NDArray[np.intp]:
        return _permutation(size, (self.seed, *key))

    def _simulate(self, index: int) -> Crop:
        far, whole = round(self.far_scale_share * CYCLE), round(self.micrograph_share * CYCLE)
        turn, kind = divmod(index, CYCLE)
        if kind < far:
            return self._far.crop(index)
        if kind < far + whole:
            return self._micrographs.crop(turn * whole + kind - far)
        return (self._crowded if (kind - far - whole) % 2 else self._gentle).crop(index)

    @cached_property
    def _crowded(self) -> CropGenerator:
        layout = LayoutRanges(spacing_diameters=(0.6, 1.3), packed_probability=0.2)
        return self._generator(3 * self.seed, layout, CropRanges(diameter_error=NEAR))

    @cached_property
    def _gentle(self) -> CropGenerator:
        ranges = CropRanges(diameter_error=NEAR, blotch_probability=0.1, strength_spread=(0.0, 0.08))
        return self._generator(3 * self.seed + 1, LayoutRanges(), ranges)

    @cached_property
    def _far(self) -> CropGenerator:
        layout = LayoutRanges(spacing_diameters=(0.6, 1.3), packed_probability=0.2)
        return self._generator(3 * self.seed + 2, layout, CropRanges(diameter_error=FAR))

    @cached_property
    def _micrographs(self) -> MicrographCrops:
        return MicrographCrops(
            MICROGRAPH_RECIPE,
            3 * self.seed,
            crop_px=self.crop_px,
            particle_px=NOMINAL_PARTICLE_PX,
            diameter_error=MICROGRAPH_NEAR,
            detection_snr=MICROGRAPH_SNR,
        )

    def _generator(self, seed: int, layout: LayoutRanges, ranges: CropRanges) -> CropGenerator:
        return CropGenerator(
            Recipe(layout=layout),
            seed,
            crop_px=self.crop_px,
            particle_px_range=(NOMINAL_PARTICLE_PX, NOMINAL_PARTICLE_PX),
            ranges=replace(ranges, empty_probability=0.1, junk_only_probability=0.15),
        )

    @cached_property
    def _key(self) -> str:
        generators = [
            [one.seed, one.crop_px, one.particle_px_range, asdict(one.recipe), asdict(one.ranges)]
            for one in (self._crowded, self._gentle, self._far)
        ]
        if self.micrograph_share:
            generators.append([self.micrograph_share, asdict(self._micrographs)])
        settings = json.dumps([self.far_scale_share, CYCLE, self.shard_crops, generators, SIMULATION_VERSION])
        return hashlib.sha256(settings.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class _ShardMaker:
    """A data set whose items are made and written when they are asked for; what comes back is what went wrong."""

    source: SimulatedCrops

    def __getitem__(self, number: int) -> OutputError | None:
        try:
            self.source.make_shard(number)
        except OutputError as error:  # raised in the worker, it would come back with a traceback in its message
            return error
        return None


@lru_cache(maxsize=64)
def _permutation(size: int, key: tuple[int, ...]) -> NDArray[np.intp]:
    return np.random.default_rng(key).permutation(size)


def turned(crop: Crop, *, quarter_turns: int, is_mirrored: bool) -> Crop:
    """The crop turned anticlockwise on the screen by quarter turns, after a mirror at its vertical middle line.

    The optics are those of the unturned crop: its astigmatism angle is not turned.
    """
    last = crop.image.shape[0] - 1
    x, y = crop.xy_px.T
    if is_mirrored:
        x = last - x
    for _ in range(quarter_turns % 4):
        x, y = y, last - x

    def turn(image: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(np.rot90(image[:, ::-1] if is_mirrored else image, quarter_turns))

    return replace(
        crop,
        image=turn(crop.image),
        xy_px=np.stack([x, y], axis=1),
        instances=turn(crop.instances),
        junk=turn(crop.junk),
    )


# ---------------------------------------------------------------------------------------------------- on disk


def _write_shard(path: Path, crops: list[Crop]) -> None:
    """All crops of a shard in one file, written aside and moved into place; several processes may write the same."""
    images = np.stack([crop.image for crop in crops])
    largest = np.abs(images).max(axis=(1, 2), keepdims=True)  # float16 has its best accuracy, and room, around 1
    scale = np.where(largest > 0, largest / 16, 1).astype(np.float32)
    arrays: dict[str, NDArray[Any]] = {
        "images": (images / scale).astype(np.float16),
        "scale": scale,
        "instances": np.stack([crop.instances for crop in crops]).astype(np.int16),
        "junk": np.packbits(np.stack([crop.junk for crop in crops]), axis=-1),
        "counts": np.array([len(crop.xy_px) for crop in crops]),
        "xy_px": np.concatenate([crop.xy_px for crop in crops]),
        "diameter_px": np.concatenate([crop.diameter_px for crop in crops]),
        "snr": np.concatenate([crop.snr for crop in crops]),
        "visibility": np.concatenate([crop.visibility for crop in crops]),
        "pixel_size_angstrom": np.array([crop.pixel_size_angstrom for crop in crops]),
        "optics": np.array([[getattr(crop.optics, name) for name in _OPTICS] for crop in crops]),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=path.parent, prefix=path.stem, suffix=".part", delete=False) as handle:
            part = Path(handle.name)
            try:
                np.savez(handle, **arrays)  # type: ignore[arg-type]
                handle.flush()
                part.replace(path)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
    except OSError as error:
        megabytes = sum(array.nbytes for array in arrays.values()) / 1e6
        raise OutputError(
            f"{path}: cannot keep simulated crops ({error}); every {len(crops)} of them take {megabytes:.0f} MB, "
            "CRYOPICK_CROPS names another folder"
        ) from error


def _read_shard(path: Path) -> list[Crop]:
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    ends = np.cumsum(arrays["counts"])
    width = arrays["images"].shape[-1]
    junk = np.unpackbits(arrays["junk"], axis=-1, count=width).astype(bool)
    crops = []
    for i, (start, end) in enumerate(zip(ends - arrays["counts"], ends, strict=True)):
        crops.append(
            Crop(
                image=arrays["images"][i].astype(np.float32) * arrays["scale"][i],
                xy_px=arrays["xy_px"][start:end],
                diameter_px=arrays["diameter_px"][start:end],
                snr=arrays["snr"][start:end],
                visibility=arrays["visibility"][start:end],
                instances=arrays["instances"][i].astype(np.int32),
                junk=junk[i],
                pixel_size_angstrom=float(arrays["pixel_size_angstrom"][i]),
                optics=CtfParameters(**dict(zip(_OPTICS, arrays["optics"][i].tolist(), strict=True))),
            )
        )
    return crops
