"""From atoms, Gaussian beads or a density map to electrostatic potential in volts above that of the ice around it."""

from __future__ import annotations

import math
import os
from dataclasses import replace

import gemmi
import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter

from cryopick.errors import InputError, SettingsError
from cryopick.io.structures.structure import FIRST_ASSEMBLY, AtomicModel, read_structure
from cryopick.io.structures.volume import read_volume
from cryopick.types import Volume

SCATTERING_TO_POTENTIAL = 47.87801  # V Å^2, h^2 / (2 pi m e): potential = this * transform of the scattering factor
ICE_DENSITY_G_PER_CM3 = 0.93  # vitreous ice (Dubochet et al., Q. Rev. Biophys. 21, 1988)
ICE_POTENTIAL_V = 4.53  # of independent atoms at that density: 47.878 * (f_O + 2 f_H) / (18.015 / (0.93 * 0.60221))
PROTEIN_CONTRAST_V = 3.4  # the mean residue C5 H7.8 N1.35 O1.5 in its 135 Å^3 (1.35 g/cm^3), by this module's tables
ENVELOPE_CONTRAST_V = 0.85 * PROTEIN_CONTRAST_V  # inside a smooth envelope: about 15 % of it is solvent in clefts

BOX_PER_DIAMETER = 1.5
_SMOOTHING_ANGSTROM = 4.0  # standard deviation; leaves the domains of a protein, removes its side chains
_DISPLACED_VOLUME_ANGSTROM3 = {"H": 5.15, "D": 5.15, "C": 16.44, "N": 2.49, "O": 9.13, "S": 19.86, "P": 5.73}
"""Ice that an atom pushes away (Fraser, MacRae and Suzuki, J. Appl. Cryst. 11, 1978, table 1; S, P: Svergun 1995)."""
_HYDROGENS_PER_ATOM = {"C": 1.2, "N": 1.1, "O": 0.2}
"""Mean hydrogens bound in protein: sums to 7.8 for the mean residue C5 H7.8 N1.35 O1.5 (used when a model has none)."""
_LARGEST_BOX_PX = 1024
_POINTS_PER_CHUNK = 1 << 16  # each spreads over 64 voxels


def volume_from_structure(
    path: str | os.PathLike[str], voxel_size_angstrom: float, *, assembly: str = FIRST_ASSEMBLY
) -> Volume:
    """Potential map of an atomic model (PDB, mmCIF) in ice.

    Parameters
    ----------
    path : see `cryopick.io.structures.structure.read_structure`
    voxel_size_angstrom : of the map; finer detail than 2 voxels is filtered away
    assembly : "first", "none", or a name that the file lists

    Returns
    -------
    volume : volts above ice, the atoms' centre of mass of scattering at voxel `n // 2`, edge at least 1.5 diameters

    Raises
    ------
    InputError
        No file, no atoms, an element without scattering factors.
    """
    model = read_structure(path, assembly=assembly)
    try:
        return volume_from_atoms(model, voxel_size_angstrom)
    except (InputError, SettingsError) as error:
        raise type(error)(f"{path}: {str(error).removeprefix(f'{model.name}: ')}") from error


def volume_from_atoms(model: AtomicModel, voxel_size_angstrom: float) -> Volume:
    """Potential map of atoms in ice: see `volume_from_structure`.

    Each atom adds its electron scattering factor (International Tables C, 4.3.2.2, five Gaussians) and takes away a
    Gaussian of ice that fills the volume it displaces (Fraser et al. 1978).
    """
    if len(model) == 0:
        raise InputError(f"{model.name}: the structure holds no atoms")
    weight = model.occupancy
    xyz = model.xyz_angstrom - np.average(model.xyz_angstrom, axis=0, weights=weight)
    diameter = 2 * float(np.sqrt((xyz**2).sum(1)).max()) + 2 * _DISPLACED_VOLUME_ANGSTROM3["C"] ** (1 / 3)
    mean_b = float(np.average(model.b_factor_angstrom2, weights=weight))
    has_hydrogens = np.isin(model.element, ["H", "D"]).mean() > 0.1
    grid = BandLimitedGrid(diameter, voxel_size_angstrom)
    for symbol in np.unique(model.element):
        is_element = model.element == symbol
        try:
            contrast = contrast_of_atom(str(symbol), grid.square_frequency, with_hydrogens=not has_hydrogens)
        except InputError as error:
            raise InputError(f"{model.name}: {error}") from error
        # One B factor for the map: at particle-picking resolution its spread over atoms does not show
        transfer = contrast * np.exp(-max(mean_b, 0.0) / 4 * grid.square_frequency)
        grid.add(xyz[is_element], weight[is_element], transfer)
    return grid.volume(BOX_PER_DIAMETER * diameter, name=model.name)


def contrast_of_atom(
    symbol: str, square_frequency: NDArray[np.float32], *, with_hydrogens: bool
) -> NDArray[np.float32]:
    """Transform of one atom's potential minus that of the ice it displaces.

    Parameters
    ----------
    symbol : chemical element
    square_frequency : in 1/Å^2, any shape
    with_hydrogens : add the hydrogens that such an atom binds on average in protein

    Returns
    -------
    transform : V Å^3, shape of `square_frequency`
    """
    element = gemmi.Element(symbol)
    coefficients = element.c4322.get_coefs() if element.c4322 is not None else []
    if element.atomic_number == 0 or not any(coefficients):
        raise InputError(f"no electron scattering factors for element {symbol!r}; fix the element column of that atom")
    displaced = _DISPLACED_VOLUME_ANGSTROM3.get(symbol)
    if displaced is None:  # metals and ions: a sphere of the van der Waals radius
        displaced = 4 / 3 * math.pi * float(element.vdw_r) ** 3
    count = _HYDROGENS_PER_ATOM.get(symbol, 0.0) if with_hydrogens else 0.0
    scattering = _scattering_factor(symbol, square_frequency)
    ice = displaced * np.exp(-math.pi * displaced ** (2 / 3) * square_frequency)
    if count:
        # Bonded hydrogens sit 1.1 Å from their atom in unknown directions: a shell, near enough a Gaussian that wide
        spread = np.exp(-2 * math.pi**2 * (1.1**2 / 3) * square_frequency)
        hydrogen_volume = _DISPLACED_VOLUME_ANGSTROM3["H"]
        scattering = scattering + count * spread * _scattering_factor("H", square_frequency)
        ice = ice + count * spread * hydrogen_volume * np.exp(-math.pi * hydrogen_volume ** (2 / 3) * square_frequency)
    return np.asarray(SCATTERING_TO_POTENTIAL * scattering - ICE_POTENTIAL_V * ice, dtype=np.float32)


def _scattering_factor(symbol: str, square_frequency: NDArray[np.float32]) -> NDArray[np.float64]:
    """Electron scattering factor in Å at squared spatial frequency (s = frequency / 2 in the tables)."""
    coefficients = gemmi.Element(symbol).c4322.get_coefs()
    pairs = zip(coefficients[:5], coefficients[5:], strict=True)
    return np.asarray(sum(a * np.exp(-b / 4 * square_frequency) for a, b in pairs), dtype=np.float64)


def volume_from_map(path: str | os.PathLike[str], *, voxel_size_angstrom: float | None = None) -> Volume:
    """Read a density map of arbitrary units and scale it to volts above ice.

    Parameters
    ----------
    path : an MRC map, protein positive
    voxel_size_angstrom : overrides the header

    Returns
    -------
    volume : solvent (the median of the border) at 0 V, and the mean over the particle at `ENVELOPE_CONTRAST_V`

    Raises
    ------
    InputError
        No file, no voxel size, or a map that is flat.
    """
    volume = read_volume(path, voxel_size_angstrom=voxel_size_angstrom)
    density = volume.density - np.median(_border(volume.density))
    # Smoothed first: noise and the peaks of a sharpened map must not decide what is inside
    smooth = gaussian_filter(density, _SMOOTHING_ANGSTROM / volume.voxel_size_angstrom)
    is_particle = smooth > 0.5 * _mean_above_half(smooth, volume.name)
    density *= ENVELOPE_CONTRAST_V / float(density[is_particle].mean())
    if not np.isfinite(density).all():
        raise InputError(f"{volume.name}: densities reach beyond what a number holds; check the map")
    return replace(volume, density=density)


def _border(density: NDArray[np.float32]) -> NDArray[np.float32]:
    """The voxels of the six faces."""
    faces = [density.take(index, axis=axis).ravel() for axis in range(3) for index in (0, -1)]
    return np.concatenate(faces)


def _mean_above_half(density: NDArray[np.float32], name: str) -> float:
    """Typical density inside the particle, found by alternating threshold and mean (isodata)."""
    if not density.max() > 0:
        raise InputError(f"{name}: the map is flat or protein is negative; expected protein above the solvent")
    level = float(density.max()) / 2
    for _ in range(50):
        inside = float(density[density > level / 2].mean())
        if abs(inside - level) < 1e-4 * level:
            break
        level = inside
    return level


class BandLimitedGrid:
    """Adds up smeared points on a fine grid and samples the sum, low-passed, at the voxel size.

    Points are spread by a cubic B-spline whose transform is divided out again, so positions between voxels are exact
    to about 1 % at the map's Nyquist frequency.

    Parameters
    ----------
    diameter_angstrom : of the sphere around the origin that holds all points
    voxel_size_angstrom : of the map
    """

    def __init__(self, diameter_angstrom: float, voxel_size_angstrom: float) -> None:
        if not (math.isfinite(voxel_size_angstrom) and voxel_size_angstrom > 0):
            raise SettingsError(f"voxel_size_angstrom is {voxel_size_angstrom:g}, expected a positive number")
        self.voxel_size_angstrom = float(voxel_size_angstrom)
        margin_px = 8  # for the smear of the points and of the low-pass
        n = math.ceil(diameter_angstrom / voxel_size_angstrom) + margin_px
        if n > _LARGEST_BOX_PX:
            raise SettingsError(
                f"a particle of {diameter_angstrom:.0f} Å at {voxel_size_angstrom:g} Å per voxel needs {n}^3 voxels, "
                f"more than {_LARGEST_BOX_PX}^3; use larger voxels"
            )
        self._size_px = even_fast_size(n)
        self._fine_px = 2 * self._size_px
        n = self._size_px
        frequency = np.fft.fftfreq(n).astype(np.float32)
        half = np.fft.rfftfreq(n).astype(np.float32)
        square = frequency[:, None, None] ** 2 + frequency[:, None] ** 2 + half**2  # 1/voxel^2
        self.square_frequency = square / np.float32(voxel_size_angstrom**2)
        # Cosine edge to Nyquist: a hard cut would ring around every atom
        radius = np.sqrt(square)
        lowpass = 0.5 + 0.5 * np.cos(np.pi * np.clip((radius - 0.35) / 0.15, 0, 1))
        spline = [np.sinc(f / 2) ** 4 for f in (frequency, half)]  # at the fine grid's half voxel
        self._filter = (lowpass / (spline[0][:, None, None] * spline[0][:, None] * spline[1])).astype(np.float32)
        self._sum = np.zeros(square.shape, dtype=np.complex64)

    def add(
        self, xyz_angstrom: NDArray[np.floating], weight: NDArray[np.floating], transfer: NDArray[np.floating]
    ) -> None:
        """Add points of one kind.

        Parameters
        ----------
        xyz_angstrom : (n, 3), relative to the origin
        weight : (n,)
        transfer : transform of one point of weight 1 at `square_frequency`, in density times Å^3
        """
        position = xyz_angstrom * (2 / self.voxel_size_angstrom) + self._fine_px // 2
        fine = deposit(position, weight, self._fine_px)
        n, half = self._size_px, self._size_px // 2
        transform = fft.rfftn(fft.ifftshift(fine), workers=1)
        rows = np.r_[0:half, self._fine_px - half : self._fine_px]  # the frequencies of the coarse grid
        coarse = transform[np.ix_(rows, rows, np.arange(n // 2 + 1))]
        self._sum += coarse * transfer

    def volume(self, edge_angstrom: float, *, name: str) -> Volume:
        """The sum as a cube of at least the given edge, origin at voxel `n // 2`."""
        n = self._size_px
        density = fft.fftshift(fft.irfftn(self._sum * self._filter, s=(n, n, n), workers=1))
        density /= self.voxel_size_angstrom**3
        edge = max(n, even_fast_size(math.ceil(edge_angstrom / self.voxel_size_angstrom)))
        before = edge // 2 - n // 2
        padded = np.pad(density.astype(np.float32, copy=False), (before, edge - n - before))
        return Volume(padded, self.voxel_size_angstrom, name=name)


def even_fast_size(n: int) -> int:
    """The smallest even size of at least n that the Fourier transform handles fast."""
    return 2 * int(fft.next_fast_len(-(-n // 2), real=True))


def deposit(position_px: NDArray[np.floating], weight: NDArray[np.floating], size_px: int) -> NDArray[np.float32]:
    """Spread weighted points `(x, y, z)` over a cube `[z, y, x]` by cubic B-splines; the total is kept."""
    floor = np.floor(position_px).astype(np.int64)  # (n, 3)
    if len(floor) and (floor.min() < 1 or floor.max() > size_px - 3):
        raise ValueError(f"points reach beyond the cube of {size_px} voxels")
    t = (position_px - floor).astype(np.float32)
    # Weights of the four nodes floor - 1 ... floor + 2, (n, 3, 4)
    spline = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=-1) / 6
    step = np.arange(-1, 3)
    neighbour = (step[:, None, None] * size_px + step[:, None]) * size_px + step  # (4, 4, 4)
    base = (floor[:, 2] * size_px + floor[:, 1]) * size_px + floor[:, 0]
    cube = np.zeros(size_px**3, dtype=np.float64)
    for first in range(0, len(base), _POINTS_PER_CHUNK):
        part = slice(first, first + _POINTS_PER_CHUNK)
        x, y, z = np.moveaxis(spline[part], 1, 0)  # (n, 4) each
        share = (weight[part, None] * z)[:, :, None, None] * y[:, None, :, None] * x[:, None, None, :]  # (n, 4, 4, 4)
        index = base[part, None, None, None] + neighbour
        cube += np.bincount(index.ravel(), share.ravel(), minlength=len(cube))
    return cube.reshape((size_px,) * 3).astype(np.float32)
