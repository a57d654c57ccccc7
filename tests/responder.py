"""An authority as certificates with OCSP responses need one: it signs both, whatever it is told to say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import ocsp

WEEK = timedelta(days=7)


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


@attrs.frozen
class Responder:
    """One authority. Certificates are PEM, responses DER; all begin an hour ago, unless they are told another time."""

    name: str = "authority"
    key: ec.EllipticCurvePrivateKey = attrs.field(factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    began: datetime = attrs.field(factory=lambda: datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1))

    def certificate(self, name: str, *, serial: int = 2, stapled: bool = False) -> tuple[bytes, bytes]:
        """A certificate for a name, and its key; with `stapled` clients are to insist on a response."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(self.name))
            .public_key(key.public_key())
            .serial_number(serial)
            .not_valid_before(self.began)
            .not_valid_after(self.began + timedelta(days=90))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        )
        if stapled:
            builder = builder.add_extension(x509.TLSFeature([x509.TLSFeatureType.status_request]), critical=False)
        made = builder.sign(self.key, hashes.SHA256())
        return (
            made.public_bytes(Encoding.PEM),
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        )

    def response(
        self, certificate: bytes, *, status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD,
        began: datetime | None = None, lasts: timedelta | None = WEEK,
    ) -> bytes:  # fmt: skip
        """What it says of a certificate; without `lasts` it says it for ever."""
        began = began or self.began
        own = (
            x509.CertificateBuilder()
            .subject_name(_name(self.name))
            .issuer_name(_name(self.name))
            .public_key(self.key.public_key())
            .serial_number(1)
            .not_valid_before(self.began)
            .not_valid_after(self.began + timedelta(days=90))
            .sign(self.key, hashes.SHA256())
        )
        revoked = began if status is ocsp.OCSPCertStatus.REVOKED else None
        builder = ocsp.OCSPResponseBuilder().add_response(
            x509.load_pem_x509_certificate(certificate), own, hashes.SHA1(), status, began,
            None if lasts is None else began + lasts, revoked, None,
        )  # fmt: skip
        built = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, own).sign(self.key, hashes.SHA256())
        return built.public_bytes(Encoding.DER)
