"""Certificates of a test's own, and an authority's as Dask clusters take them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Certificates:
    """The files of one party: its authority's certificate, its own, and its key."""

    authority: Path
    certificate: Path
    key: Path

    @classmethod
    def made(cls, folder: Path) -> Certificates:
        """An authority that exists nowhere else, and a certificate of it."""
        folder.mkdir(parents=True)
        authority_key = ec.generate_private_key(ec.SECP256R1())
        by = ("authority", authority_key)
        public_key = authority_key.public_key()
        authority = issued("authority", public_key, *by, is_authority=True)
        key = ec.generate_private_key(ec.SECP256R1())
        own = issued("cluster", key.public_key(), *by, is_authority=False)
        found = cls(folder / "authority.pem", folder / "own.pem", folder / "key.pem")
        found.authority.write_bytes(_pem(authority))
        found.certificate.write_bytes(_pem(own))
        found.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return found

    @property
    def arguments(self) -> list[str]:
        """As `dask scheduler` and `dask worker` take them."""
        return [
            *("--tls-ca-file", str(self.authority)),
            *("--tls-cert", str(self.certificate)),
            *("--tls-key", str(self.key)),
        ]

    @property
    def settings(self) -> dict[str, str]:
        """As a client finds them in Dask's configuration."""
        return {
            "distributed.comm.tls.ca-file": str(self.authority),
            "distributed.comm.tls.client.cert": str(self.certificate),
            "distributed.comm.tls.client.key": str(self.key),
        }

    @property
    def environment(self) -> dict[str, str]:
        """The same, as environment variables."""
        return {
            "DASK_" + name.upper().replace(".", "__").replace("-", "_"): value
            for name, value in self.settings.items()
        }


def issued(
    name: str,
    public_key: ec.EllipticCurvePublicKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    is_authority: bool,
) -> x509.Certificate:
    """A certificate that holds for a day.

    Args:
        name: whose it is.
        public_key: whose it is.
        issuer, issuer_key: who signs it; the same name and key where it vouches for
            itself.
        is_authority: whether it may sign others.
    """
    now = datetime.now(UTC)
    usage = x509.KeyUsage(
        digital_signature=not is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .issuer_name(_named(issuer))
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
        .add_extension(usage, critical=True)
        .sign(issuer_key, hashes.SHA256())
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
