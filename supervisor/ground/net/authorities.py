"""Whom clients believe who speak TLS beside the data path, by the standard library: health checks, key sets fetched.

They are to judge a server as the data path does (tls_client.py): one that gets requests passes its check, and the other
way round.
"""

from __future__ import annotations

import ssl


def client_context(authorities: bytes | None) -> ssl.SSLContext:
    """A context that verifies servers and their names by these PEM certificates, None: by those that the system
    believes. Raises ValueError for what is none."""
    if authorities is None:
        context = ssl.create_default_context()
    else:
        # Imported here: there is nothing to read where the system's are believed.
        from cryptography import x509
        from cryptography.hazmat.primitives.serialization import Encoding

        found = x509.load_pem_x509_certificates(authorities)
        # As DER: of PEM the module takes only ASCII, and bundles name authorities in between as these write themselves.
        context = ssl.create_default_context(cadata=b"".join(one.public_bytes(Encoding.DER) for one in found))
    # From Python 3.13 on the module is stricter than OpenSSL with certificates, and believes single links of a chain.
    context.verify_flags = ssl.VERIFY_X509_TRUSTED_FIRST
    return context
