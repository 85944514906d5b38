"""Made-up proteins: sizes, symmetry, contrast, variety, and the same seed the same protein."""

import time

import numpy as np
import pytest
from scipy.ndimage import label

from cryopick.errors import InputError, SettingsError
from cryopick.simulation.specimens.protein_families import FAMILY_BY_NAME, lay_out_family
from cryopick.simulation.specimens.protein_layouts import Layout, symmetry_operators
from cryopick.simulation.specimens.proteins import FAMILIES, particle_diameter_angstrom, random_protein
from cryopick.simulation.specimens.residues import RESIDUE_VOLUME_ANGSTROM3, fill_layout
from cryopick.simulation.specimens.specimen import PROTEIN_CONTRAST_V
from cryopick.types import Volume


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("diameter", [90.0, 180.0])
def test_diameter_is_the_one_asked_for(family: str, diameter: float) -> None:
    volume = random_protein(np.random.default_rng(3), family=family, diameter_angstrom=diameter)
    # The surface is rough by 18 % of a lobe and the map is blurred by a voxel or two on each side
    assert particle_diameter_angstrom(volume) == pytest.approx(diameter, rel=0.15, abs=8.0)
    assert len(volume.density) * volume.voxel_size_angstrom >= 1.5 * diameter
    assert volume.name.startswith(family)


@pytest.mark.parametrize("family", FAMILIES)
def test_density_is_protein_in_ice(family: str) -> None:
    volume = random_protein(np.random.default_rng(4), family=family, diameter_angstrom=160.0)
    faces = np.stack([volume.density[0], volume.density[:, 0], volume.density[..., -1]])
    assert np.abs(faces).max() < 0.01  # ice all round
    inside = volume.density[volume.density > 0.5 * PROTEIN_CONTRAST_V]
    assert inside.mean() == pytest.approx(PROTEIN_CONTRAST_V, rel=0.35)  # RNA is denser, lipid and clefts are thinner
    assert volume.density.min() > -0.15 * volume.density.max()  # the ripple of a band-limited map


@pytest.mark.parametrize("family", FAMILIES)
def test_same_seed_gives_the_same_protein_and_another_seed_another(family: str) -> None:
    first, second, other = (
        random_protein(np.random.default_rng(seed), family=family, diameter_angstrom=110.0) for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(first.density, second.density)
    assert first.density.shape != other.density.shape or not np.array_equal(first.density, other.density)


def test_centre_of_mass_is_the_rotation_centre() -> None:
    volume = random_protein(np.random.default_rng(7), family="multilobed", diameter_angstrom=150.0)
    grid = np.indices(volume.density.shape) - len(volume.density) // 2
    centre = (grid * volume.density).sum(axis=(1, 2, 3)) / volume.density.sum()
    np.testing.assert_allclose(centre, 0.0, atol=0.1)


@pytest.mark.parametrize(
    ("group", "order"), [("C1", 1), ("C7", 7), ("D2", 4), ("D7", 14), ("T", 12), ("O", 24), ("I", 60)]
)
def test_point_groups_have_their_number_of_rotations(group: str, order: int) -> None:
    operators = symmetry_operators(group)
    assert len(operators) == order
    products = np.einsum("aij,bjk->abik", operators, operators).reshape(-1, 1, 3, 3)
    assert np.abs(products - operators).max(axis=(2, 3)).min(axis=1).max() < 1e-9  # closed: a group


@pytest.mark.parametrize("family", ["ring", "barrel", "shell", "assembly"])
def test_assemblies_are_symmetric(family: str) -> None:
    rng = np.random.default_rng(8)
    layout = lay_out_family(rng, family=family, diameter_angstrom=150.0)
    xyz = fill_layout(rng, layout).xyz_angstrom
    assert len(layout.operators) > 1
    for operator in layout.operators[:4]:
        turned = xyz @ operator.T
        np.testing.assert_allclose(np.sort(turned @ [1, 2, 3]), np.sort(xyz @ [1, 2, 3]), atol=1e-6)


def test_shells_and_rings_are_hollow() -> None:
    shell = random_protein(np.random.default_rng(2), family="shell", diameter_angstrom=240.0)
    ring = random_protein(np.random.default_rng(2), family="ring", diameter_angstrom=240.0)
    middle = len(shell.density) // 2
    core = slice(middle - 3, middle + 4)
    assert np.abs(shell.density[core, core, core]).mean() < 0.2
    assert np.abs(ring.density[core, core, core]).mean() < 0.2


def test_membrane_belt_is_fainter_than_protein() -> None:
    rng = np.random.default_rng(9)
    layout = lay_out_family(rng, family="membrane", diameter_angstrom=160.0)
    assert layout.belt is not None
    weight = fill_layout(rng, layout).volume_angstrom3
    lipid_density = weight[weight < 0.95 * 6.0**3]  # beads stand on a 6 Å lattice
    assert len(lipid_density) > 100
    assert (weight > 0).all()
    assert lipid_density.max() / 6.0**3 < 1.0


def test_packing_has_the_density_of_protein() -> None:
    """Protein fills most of the lobes: 135 Å^3 per residue, less clefts and cavities."""
    rng = np.random.default_rng(10)
    layout = lay_out_family(rng, family="globular", diameter_angstrom=120.0)
    bead_volume = fill_layout(rng, layout).volume_angstrom3
    # Volume of the union of the lobes by counting random points
    points = rng.uniform(-70, 70, size=(100_000, 3))
    local = np.einsum("kai,pki->pka", layout.frame, points[:, None] - layout.center) / layout.semi_axes
    union = 140.0**3 * ((local**2).sum(axis=2) < 1).any(axis=1).mean()
    assert 0.6 < bead_volume.sum() / union < 1.05
    assert bead_volume.reshape(-1, 2).sum(axis=1)[0] == pytest.approx(RESIDUE_VOLUME_ANGSTROM3)


@pytest.mark.parametrize("family", FAMILIES)
def test_particles_hang_together(family: str) -> None:
    """Nearly all mass lies in one piece, so that a picker is never asked to pick half a particle."""
    shares = []
    for seed in range(4):
        volume = random_protein(np.random.default_rng(seed), family=family, diameter_angstrom=150.0)
        parts, _ = label(volume.density > 0.3, structure=np.ones((3, 3, 3)))
        mass = np.bincount(parts.ravel(), volume.density.ravel())[1:]
        shares.append(mass.max() / mass.sum())
    assert np.median(shares) > 0.9, shares


def balls(*x: float, group: str = "C1") -> Layout:
    """Balls of radius 1 along the x axis."""
    center = np.array([[value, 0.0, 0.0] for value in x])
    one = np.ones((len(x), 3))
    return Layout(center, one, np.tile(np.eye(3), (len(x), 1, 1)), one[:, 0], symmetry_operators(group))


def test_layouts_in_pieces_are_recognised() -> None:
    assert balls(0.0, 1.5, 3.0).is_connected()
    assert not balls(0.0, 1.5, 4.0).is_connected()
    assert balls(0.8, group="C2").is_connected()  # its copy is at -0.8
    assert not balls(1.2, group="C2").is_connected()
    assert balls(1.2, group="C6").is_connected()  # neighbours at distance 1.2
    assert not balls(2.5, group="C6").is_connected()


def test_drawn_diameters_stay_in_the_range_of_the_family() -> None:
    for seed in range(5):
        volume = random_protein(np.random.default_rng(seed))
        family = FAMILY_BY_NAME[volume.name.split("-")[0]]
        diameter = float(volume.name.split("-")[1].removesuffix("A"))
        assert family.smallest_angstrom - 1 <= diameter <= family.largest_angstrom + 1


def test_two_hundred_angstrom_protein_is_made_quickly() -> None:
    random_protein(np.random.default_rng(0), family="assembly", diameter_angstrom=200.0)  # warm
    start = time.process_time()
    for seed in range(5):
        random_protein(np.random.default_rng(seed), family="assembly", diameter_angstrom=200.0)
    assert (time.process_time() - start) / 5 < 1.0  # 0.1 s on an idle core; room for a busy machine


def test_unknown_family_lists_the_known_ones() -> None:
    with pytest.raises(SettingsError, match="family 'blob' is unknown; expected one of: globular, rod, ring"):
        random_protein(np.random.default_rng(0), family="blob")


@pytest.mark.parametrize("diameter", [59.0, 601.0, float("nan")])
def test_diameter_out_of_range_is_refused(diameter: float) -> None:
    with pytest.raises(SettingsError, match="expected 60 to 600"):
        random_protein(np.random.default_rng(0), diameter_angstrom=diameter)


def test_diameter_of_a_ball_by_hand() -> None:
    axis = np.arange(64) - 32
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    ball = Volume((radius <= 20).astype(np.float32), 2.0)
    assert particle_diameter_angstrom(ball) == pytest.approx(80.0, abs=4.0)


def test_empty_map_has_no_diameter() -> None:
    with pytest.raises(InputError, match="no positive density"):
        particle_diameter_angstrom(Volume(np.zeros((8, 8, 8), np.float32), 1.0))
