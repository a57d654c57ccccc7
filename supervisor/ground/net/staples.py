"""OCSP responses that are shown with certificates (RFC 6066 §8): which one is of use, and for how long.

They come from a file, as a job of the operator's fetches them. Whether a responder has signed them is for clients to
find out; what is looked at here is whether the file is of this certificate, says something good of it, and is not old.
One that is none of that is not shown, and never in the way of its certificate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509 import ocsp
from OpenSSL import SSL


@attrs.frozen
class Staple:
    """What a responder says of one certificate. `begins` and `ends` are aware; without an end it does not get old."""

    data: bytes = attrs.field(repr=False)
    begins: datetime
    ends: datetime | None

    def is_fresh(self, now: datetime) -> bool:
        return self.ends is None or now < self.ends

    def is_due(self, now: datetime) -> bool:
        """Whether three quarters of its time are over: authorities have a newer one after the half."""
        return self.ends is not None and now > self.begins + (self.ends - self.begins) * 3 / 4


def staple_of(leaf: x509.Certificate, data: bytes) -> Staple | None:
    """What the response `data` (DER) says of this certificate; None if it is about others. Raises ValueError for what
    is no response, and for one that has nothing good to say."""
    try:
        response = ocsp.load_der_ocsp_response(data)
    except ValueError:
        raise ValueError("not an OCSP response in DER") from None
    if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        status = response.response_status.name.lower().replace("_", " ")
        raise ValueError(f"the OCSP responder has not answered: {status}")
    for one in response.responses:
        if one.serial_number != leaf.serial_number or one.issuer_name_hash != _digest(one.hash_algorithm, leaf):
            continue
        if one.certificate_status is not ocsp.OCSPCertStatus.GOOD:
            raise ValueError(f"the OCSP response says that the certificate is {one.certificate_status.name.lower()}")
        return Staple(data, one.this_update_utc, one.next_update_utc)
    return None


def _digest(algorithm: hashes.HashAlgorithm, leaf: x509.Certificate) -> bytes:
    """By what a response names the issuer (RFC 6960 §4.1.1)."""
    digest = hashes.Hash(algorithm)
    digest.update(leaf.issuer.public_bytes())
    return digest.finalize()


def must_be_stapled(leaf: x509.Certificate) -> bool:
    """Whether clients refuse the certificate without a response (RFC 7633)."""
    try:
        features = leaf.extensions.get_extension_for_class(x509.TLSFeature).value
    except x509.ExtensionNotFound:
        return False
    return x509.TLSFeatureType.status_request in features


def shown(staples: Mapping[x509.Certificate, Staple]) -> Callable[[SSL.Connection, Any], bytes]:
    """The callback of a context whose connections show these certificates: the response that goes with the one that was
    chosen, b"" for none."""

    def show(connection: SSL.Connection, _: Any) -> bytes:
        chosen = connection.get_certificate()
        staple = None if chosen is None else staples.get(chosen.to_cryptography())
        return staple.data if staple is not None and staple.is_fresh(datetime.now(UTC)) else b""

    return show
