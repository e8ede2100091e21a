"""A token in software (SoftHSM), with keys that never leave it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pkcs11
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from pkcs11 import Attribute, KeyType, ObjectClass
from pkcs11.util.ec import encode_ec_public_key, encode_named_curve_parameters

LIBRARIES = (
    "/usr/lib/softhsm/libsofthsm2.so",  # Debian, Ubuntu
    "/usr/lib64/pkcs11/libsofthsm2.so",  # Fedora
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
)
NEEDS_SOFTHSM = pytest.mark.skipif(
    shutil.which("softhsm2-util") is None,
    reason="there is no token in software: apt-get install softhsm2",
)
LABEL = "models"
PIN = "739184"
_CONFIGURATION = "SOFTHSM2_CONF"


@dataclass(frozen=True)
class SoftToken:
    """A token, whose keys the test makes.

    Attributes:
        folder: of the token; public keys are written there.
        library: that speaks to it.
    """

    folder: Path
    library: str

    @classmethod
    def made(cls, folder: Path, *further: str) -> SoftToken:
        """A token, and further ones by their labels.

        The library reads its configuration as it is loaded: those of another folder
        are gone.
        """
        library = next(path for path in LIBRARIES if Path(path).is_file())
        (folder / "tokens").mkdir(parents=True)
        configuration = folder / "softhsm2.conf"
        configuration.write_text(
            f"directories.tokendir = {folder / 'tokens'}\n"
            "objectstore.backend = file\nlog.level = ERROR\n"
        )
        os.environ[_CONFIGURATION] = str(configuration)
        pkcs11.unload(library)
        for label in (LABEL, *further):
            pins = ("--pin", PIN, "--so-pin", "12345678")
            command = ["softhsm2-util", "--init-token", "--free", "--label", label]
            subprocess.run([*command, *pins], check=True, capture_output=True)
        return cls(folder, library)

    def uri(self, name: str = "release", **query: str) -> str:
        """The URI of a key, with what follows the question mark."""
        asked = {"module-path": self.library, **query}
        texts = [f"{key}={value}" for key, value in asked.items()]
        return f"pkcs11:token={LABEL};object={name}?{'&'.join(texts)}"

    @contextmanager
    def session(self) -> Iterator[Any]:
        """A session that may write."""
        token = pkcs11.lib(self.library).get_token(token_label=LABEL)
        with token.open(rw=True, user_pin=PIN) as session:
            yield session

    def make_key(
        self,
        name: str = "release",
        curve: str = "secp256r1",
        object_id: bytes = b"",
        **private: Any,
    ) -> Path:
        """Make a pair of keys.

        Args:
            name: their label.
            curve: of the keys.
            object_id: of both.
            private: attributes of the private one.

        Returns:
            The public one, in PEM.
        """
        parameters = {Attribute.EC_PARAMS: encode_named_curve_parameters(curve)}
        template = {Attribute[each]: value for each, value in private.items()}
        with self.session() as session:
            domain = session.create_domain_parameters(
                KeyType.EC, parameters, local=True
            )
            public, _ = domain.generate_keypair(
                store=True, label=name, id=object_id, private_template=template
            )
            der = encode_ec_public_key(public)
        key = serialization.load_der_public_key(der)
        path = self.folder / f"{name}.pub"
        path.write_bytes(
            key.public_bytes(
                serialization.Encoding.PEM,
                serialization.PublicFormat.SubjectPublicKeyInfo,
            )
        )
        return path

    def write_certificate(
        self, certificate: x509.Certificate, name: str, object_id: bytes = b""
    ) -> None:
        """Write a certificate onto the token."""
        with self.session() as session:
            session.create_object(
                {
                    Attribute.CLASS: ObjectClass.CERTIFICATE,
                    Attribute.CERTIFICATE_TYPE: pkcs11.CertificateType.X_509,
                    Attribute.TOKEN: True,
                    Attribute.LABEL: name,
                    Attribute.ID: object_id,
                    Attribute.SUBJECT: certificate.subject.public_bytes(),
                    Attribute.VALUE: certificate.public_bytes(
                        serialization.Encoding.DER
                    ),
                }
            )

    def remove(self, kind: ObjectClass, name: str) -> None:
        """Remove the objects of a kind by their label."""
        with self.session() as session:
            wanted = {Attribute.CLASS: kind, Attribute.LABEL: name}
            for found in list(session.get_objects(wanted)):
                found.destroy()
