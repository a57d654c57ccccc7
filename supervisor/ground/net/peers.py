"""Which clients a listener lets in by their certificates, and what they are called (mutual TLS).

A certificate is verified by OpenSSL against the authorities given here; one that is allowed by no name ends the
handshake as one by a strange authority does. A session that resumes was verified under the same policy: the policy is
part of what sessions are bound to.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import attrs
from cryptography import x509
from OpenSSL import SSL, crypto

from supervisor.ground.net.peernames import fits

MAX_NAME = 512  # characters of a name in a header

_PLAIN = re.compile(r"[\x21-\x7e]+").fullmatch


@attrs.frozen
class PeerPolicy:
    """`authorities` are PEM; `names` are patterns of names that may come, empty: all that the authorities vouch for."""

    authorities: bytes
    required: bool = True
    names: tuple[str, ...] = ()

    def session_id(self) -> bytes:
        """What sessions are bound to (at most 32 bytes): one from before a change of policy does not resume."""
        return hashlib.sha256(repr(attrs.astuple(self)).encode()).digest()

    def settle(self, context: SSL.Context) -> None:
        """Let sessions of this context be bound to the policy, and name the authorities to clients."""
        context.set_session_id(self.session_id())
        for authority in x509.load_pem_x509_certificates(self.authorities):
            context.add_client_ca(authority)

    def ask(self, connection: SSL.Connection) -> None:
        """Ask the client of this connection for its certificate."""
        mode = SSL.VERIFY_PEER | (SSL.VERIFY_FAIL_IF_NO_PEER_CERT if self.required else 0)
        connection.set_verify(mode, self._verified)

    def _verified(self, connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, ok: int) -> bool:
        return bool(ok) and (depth > 0 or not self.names or self.name_of(certificate.to_cryptography()) is not None)

    def name_of(self, certificate: x509.Certificate) -> str | None:
        """What the client is called: the first of its names that is allowed; None if none is."""
        for name in names_of(certificate):
            if not self.names or any(fits(pattern, name) for pattern in self.names):
                return name
        return None


def names_of(certificate: x509.Certificate) -> Iterator[str]:
    """Alternative names: URIs (as SPIFFE's), DNS names, mail addresses, addresses; without any, the common name. Only
    what can stand in a header."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        names = [quote(str(name.value), safe=" !#$&'()*+,-./:;<=>?@[]^_`{|}~") for name in common]
    else:
        kinds: tuple[Any, ...] = (x509.UniformResourceIdentifier, x509.DNSName, x509.RFC822Name, x509.IPAddress)
        names = [str(name) for kind in kinds for name in found.get_values_for_type(kind)]
    for name in names:
        if 0 < len(name) <= MAX_NAME and _PLAIN(name.replace(" ", "_")) and name == name.strip():
            yield name
