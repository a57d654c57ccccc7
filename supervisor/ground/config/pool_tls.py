"""[pools.NAME] tls: connections to the servers of a pool are encrypted, and the servers prove who they are."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import attrs

from .problems import Problem
from .secrets import File

_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\Z").match


@attrs.frozen(kw_only=True)
class PoolTlsTable:
    """[pools.NAME] tls: an empty table asks for TLS with the defaults."""

    sni: str | None = None  # the name that is asked for and that the certificate must have; None: the address
    ca: File | None = None  # PEM: whom to trust; None: whom the system trusts
    verify: bool = True
    cert: File | None = None  # PEM: what we show to servers that ask who we are
    key: File | None = None

    def problems(self, config: Any) -> Iterable[Problem]:
        # Imported here: OpenSSL is loaded only where TLS is asked for.
        from supervisor.ground.net.keypairs import KeyPair
        from supervisor.ground.net.tls_client import Connector

        if self.sni is not None and not _NAME(self.sni):
            yield Problem(("sni",), "not the name of a host")
        if self.ca is not None and not self.verify:
            yield Problem(("ca",), "nobody is trusted or not while verify = false")
        for key, other in (("cert", "key"), ("key", "cert")):
            if getattr(self, key) is None and getattr(self, other) is not None:
                yield Problem((other,), f"needs a {key} beside it")
        if self.ca is not None:
            try:
                Connector(self.ca.data)
            except ValueError as error:
                yield Problem(("ca",), str(error))
        if self.cert is not None and self.key is not None:
            try:
                Connector(pair=KeyPair(self.cert.data, self.key.data), verify=False)
            except ValueError as error:
                yield Problem(("cert",), str(error))
