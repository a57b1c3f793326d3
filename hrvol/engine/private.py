"""Keep other accounts out of a run: keys for TLS, and private folders."""

from __future__ import annotations

import datetime
import multiprocessing.util
import os
import shutil
import ssl
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from distributed import Security

SOCKET_PATH = 107
"""Most bytes of a socket's path."""

_ROLES = ("client", "scheduler", "worker")


@dataclass(frozen=True)
class RunKeys:
    """A certificate and its key, which every process of a run has and no other: as PEM texts, or as paths.

    Attributes
    ----------
    certificate
        Signed with the key itself.
    key
        The private key.
    """

    certificate: str
    key: str = field(repr=False)

    @classmethod
    def create(cls) -> RunKeys:
        """Return new keys. They end with the run, so the certificate is valid whatever the clocks say."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hrvol")])
        certificate = (
            x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime.datetime(2000, 1, 1))
            .not_valid_after(datetime.datetime(9999, 12, 31))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(key, hashes.SHA256())
        )
        secret = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return cls(certificate.public_bytes(serialization.Encoding.PEM).decode(), secret.decode())

    def saved(self, folder: Path) -> RunKeys:
        """Write the keys into a folder, readable by this account only; return their paths."""
        paths = folder / "certificate.pem", folder / "key.pem"
        for path, text in zip(paths, (self.certificate, self.key), strict=True):
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
                stream.write(text)
        return RunKeys(*map(str, paths))

    def security(self) -> Security:
        """Return Dask's settings: TLS for all connections, and only for processes with these keys."""
        certificates = {f"tls_{role}_cert": self.certificate for role in _ROLES}
        keys = {f"tls_{role}_key": self.key for role in _ROLES}
        return Security(
            require_encryption=True,
            tls_ca_file=self.certificate,
            tls_min_version=ssl.TLSVersion.TLSv1_3,
            **certificates,
            **keys,
        )


@contextmanager
def private_folder(prefix: str, parent: str | Path | None = None) -> Iterator[Path]:
    """Create a folder for this account only, with a name that nobody can foresee; remove it at the end.

    Parameters
    ----------
    prefix
        Start of its name.
    parent
        Where to create it, created if missing; ``None``: the folder for temporary files.
    """
    if parent is not None:
        Path(parent).mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent)).absolute()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        # Dask adds its folders to the search path. Others may create one of that name from now on.
        sys.path[:] = [entry for entry in sys.path if not Path(entry).is_relative_to(folder)]


def prepare_sockets() -> None:
    """Have multiprocessing create its sockets in a private folder whose path is short enough for them."""
    # Python 3.11.0 would use abstract sockets, to which every account can connect (CVE-2022-42919).
    multiprocessing.util.abstract_sockets_supported = False  # type: ignore[misc]
    name = "/pymp-12345678/listener-12345678"
    if len(os.fsencode(tempfile.gettempdir() + name)) <= SOCKET_PATH:
        return
    configured, tempfile.tempdir = tempfile.tempdir, "/tmp"
    try:
        multiprocessing.util.get_temp_dir()  # kept until the process ends
    finally:
        tempfile.tempdir = configured
