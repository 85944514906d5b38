"""The public names of cryopick, each from the module where it lives; `__init__.py` reads this file."""

from .data.datasets import open_dataset as open_dataset
from .data.labels import read_labels as read_labels
from .geometry.units import Length as Length
from .geometry.units import parse_length as parse_length
from .io.coordinates.formats import read_picks as read_picks
from .io.coordinates.formats import write_picks as write_picks
from .io.images.micrographs import read_micrograph as read_micrograph
from .io.images.micrographs import write_micrograph as write_micrograph
from .io.inputs.sources import find_micrographs as find_micrographs
from .io.weights import load_checkpoint as load_checkpoint
from .pickers.registry import list_pickers as list_pickers
from .pickers.registry import make_picker as make_picker
from .types import Micrograph as Micrograph
from .types import Picks as Picks
from .workflows.benchmark import benchmark as benchmark
from .workflows.compare import compare as compare
from .workflows.consensus import consensus as consensus
from .workflows.convert import convert as convert
from .workflows.evaluate import evaluate as evaluate
from .workflows.finetune import finetune as finetune
from .workflows.inspect import inspect as inspect
from .workflows.label import label as label
from .workflows.open_run import open_run as open_run
from .workflows.pick import pick as pick
from .workflows.report import report as report
from .workflows.rethreshold import rethreshold as rethreshold
from .workflows.simulate import simulate as simulate
from .workflows.train import plan_training as plan_training
from .workflows.train import train_picker as train_picker
from .workflows.validate3d.run import Validation as Validation
from .workflows.validate3d.run import validate3d as validate3d
from .workflows.watch import watch as watch

__version__: str
