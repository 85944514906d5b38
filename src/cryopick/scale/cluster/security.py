"""Who may speak to a run's processes. Dask's messages are pickles: whoever may connect may run code as this user.

So every connection is TLS with certificates on both sides. A cluster of our own makes a key for the run, in files that
only this user can read, and removes them at the end. A scheduler that somebody else runs must ask for a certificate,
too; only on this very machine may it do without.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryopick.errors import InputError, OutputError, SettingsError
from cryopick.scale.cluster.config import ClusterSettings

CERTIFICATE, KEY, TOKEN = "certificate.pem", "key.pem", "token"


@dataclass(frozen=True)
class RunSecrets:
    """Files of one run in a folder that only this user can read, and that every worker must see.

    Attributes
    ----------
    folder : of certificate and key
    token_file : random content by which a worker knows that it sees this run's folder, and not another of that name
    """

    folder: Path
    token_file: Path
    token: str

    @property
    def certificate(self) -> Path:
        return self.folder / CERTIFICATE

    @property
    def key(self) -> Path:
        return self.folder / KEY

    def remove(self) -> None:
        """No later process can join; called again it does nothing."""
        for path in (self.certificate, self.key, self.token_file):
            path.unlink(missing_ok=True)
        for folder in {self.folder, self.token_file.parent}:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def private_folder(folder: Path) -> Path:
    """Make a folder that only this user can read."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made a folder of this user alone: {error.strerror}") from error
    return folder


def begin_secrets(folder: Path, settings: ClusterSettings, *, with_certificate: bool) -> RunSecrets:
    """A token, and a key of this run alone; what an earlier call left behind is removed.

    Parameters
    ----------
    folder : of the run, such as RUN/.cluster
    with_certificate : for a cluster of our own

    Raises
    ------
    OutputError
        If the files cannot be written.
    """
    private_folder(folder)
    place = folder
    if settings.shared_directory:
        of_this_run = hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:12]
        place = Path(settings.shared_directory).expanduser() / f"cryopick-{of_this_run}"
        shutil.rmtree(place, ignore_errors=True)
        private_folder(place)
    made = RunSecrets(place, folder / TOKEN, secrets.token_hex(16))
    made.remove()
    private_folder(folder)
    private_folder(place)
    try:
        _write_private(made.token_file, made.token)
        if with_certificate:
            from distributed.security import Security

            security = Security.temporary()
            _write_private(made.certificate, security.tls_ca_file)
            _write_private(made.key, security.tls_client_key)
    except OSError as error:
        raise OutputError(f"{place}: certificates of this run cannot be written: {error.strerror}") from error
    return made


def _write_private(path: Path, content: str) -> None:
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as stream:
        stream.write(content)


def own_security(made: RunSecrets) -> Any:
    """For scheduler, workers and client of a run alike: who has the run's key is let in."""
    return _security(str(made.certificate), str(made.certificate), str(made.key))


def security_of(address: str, settings: ClusterSettings) -> Any:
    """For the client of a scheduler that somebody else runs; None on this machine without encryption.

    Raises
    ------
    SettingsError
        If the address is not safe, see `require_safe_address`.
    InputError
        If a file that the settings name is not there.
    """
    if require_safe_address(address, settings) == "tcp":
        return None
    for name in ("ca", "cert", "key"):
        path = Path(getattr(settings, name)).expanduser()
        if not path.is_file():
            raise InputError(f"cluster: {name} is {path}, and there is no such file")
    return _security(*(str(Path(getattr(settings, name)).expanduser()) for name in ("ca", "cert", "key")))


def _security(ca: str, cert: str, key: str) -> Any:
    from distributed.security import Security

    roles = ("client", "scheduler", "worker")
    files = {f"tls_{role}_{kind}": path for role in roles for kind, path in (("cert", cert), ("key", key))}
    return Security(require_encryption=True, tls_ca_file=ca, **files)


def require_safe_address(address: str, settings: ClusterSettings) -> str:
    """`tls` or `tcp`, the way in which the scheduler at this address is spoken to.

    Raises
    ------
    SettingsError
        For TLS without the files of certificates, for `tcp://` to another machine, and for anything else.
    """
    try:
        parts = urlsplit(address)
        scheme, host, port = parts.scheme, parts.hostname, parts.port
    except ValueError:
        scheme, host, port = "", None, None
    if scheme not in ("tls", "tcp") or not host or port is None:
        raise SettingsError(f"--cluster {address}: expected slurm, local, or a scheduler's tls://HOST:PORT")
    if scheme == "tls":
        missing = [name for name in ("ca", "cert", "key") if not getattr(settings, name)]
        if missing:
            raise SettingsError(
                f"--cluster {address}: needs the files {', '.join(missing)} in [cluster] of --cluster-config, so that "
                "nobody else can speak to the scheduler"
            )
    elif not _is_loopback(host):
        raise SettingsError(
            f"--cluster {address}: tcp:// is not encrypted and lets anybody run code; it is taken for this machine "
            "alone (tcp://127.0.0.1:PORT), another one needs tls:// with ca, cert and key in --cluster-config"
        )
    return scheme


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
