"""Find protein particles in cryo-EM micrographs."""

import lazy_loader

from cryopick.older_paths import install as _install_older_paths
from cryopick.version import __version__

# The public names stand in `__init__.pyi`, for type checkers and, read by lazy_loader, for Python: one list. Each is
# imported on first use, so `import cryopick` stays instant.
__getattr__, __dir__, _names = lazy_loader.attach_stub(__name__, __file__)
__all__ = ["__version__", *_names]  # noqa: PLE0604  # lazy_loader gives a list of strings

_install_older_paths()
