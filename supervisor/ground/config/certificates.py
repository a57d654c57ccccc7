"""Certificates as a configuration names them, for whatever tier: the pair, what to warn of, and other contents for it.

Whether a pair can be used at all is the `problems` of the table that holds it; here is what works and soon will not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

import attrs

from .problems import Path, Problem
from .secrets import File
from .structure import tables

if TYPE_CHECKING:
    from supervisor.ground.net.keypairs import KeyPair

EXPIRES_SOON = timedelta(days=30)  # what public authorities leave for a renewal that has failed


@attrs.frozen(kw_only=True)
class CertificateTable:
    """A certificate chain and its private key, PEM; with them, an OCSP response for clients that ask for one, DER."""

    cert: File
    key: File
    ocsp: File | None = None

    @property
    def files(self) -> tuple[File, ...]:
        """All of them that there are."""
        return (self.cert, self.key) if self.ocsp is None else (self.cert, self.key, self.ocsp)

    def pair(self) -> KeyPair:
        """Certificate and key as TLS takes them."""
        from supervisor.ground.net.keypairs import KeyPair  # here: OpenSSL is loaded only where TLS is asked for

        return KeyPair(self.cert.data, self.key.data, b"" if self.ocsp is None else self.ocsp.data)

    def warnings(self, config: Any, now: datetime) -> Iterable[Problem]:
        """Of a pair that can be used."""
        from cryptography import x509

        try:
            leaf = x509.load_pem_x509_certificate(self.cert.data)
        except ValueError:
            return  # a problem, and told as such
        begins, ends = leaf.not_valid_before_utc, leaf.not_valid_after_utc
        if ends <= now:
            yield Problem(("cert",), f"the certificate has expired, on {ends:%Y-%m-%d}")
        elif begins > now:
            yield Problem(("cert",), f"the certificate is not valid before {begins:%Y-%m-%d}")
        elif ends - now < EXPIRES_SOON:
            days = (ends - now).days
            left = f"in {days} days" if days > 1 else "in a day" if days else "within a day"
            yield Problem(("cert",), f"the certificate expires {left}, on {ends:%Y-%m-%d}")
        yield from self._staple_warnings(leaf, now)

    def _staple_warnings(self, leaf: Any, now: datetime) -> Iterable[Problem]:
        from supervisor.ground.net.staples import must_be_stapled, staple_of

        if self.ocsp is None:
            if must_be_stapled(leaf):
                yield Problem(("cert",), "clients refuse this certificate without an OCSP response: set ocsp")
            return
        try:
            staple = staple_of(leaf, self.ocsp.data)
        except ValueError:
            return
        if staple is None:
            yield Problem(("ocsp",), "the OCSP response is of another certificate, and is not shown")
        elif staple.ends is not None and staple.is_due(now):
            when = f"on {staple.ends:%Y-%m-%d %H:%M} UTC"
            if staple.is_fresh(now):
                yield Problem(("ocsp",), f"the OCSP response expires {when}; fetch a newer one")
            else:
                yield Problem(("ocsp",), f"the OCSP response has expired, {when}, and is not shown")


def unusable(pairs: Sequence[CertificateTable]) -> Iterable[Problem]:
    """What is wrong with the pairs that the key `certificates` of a table lists."""
    # Imported here: OpenSSL is loaded only where TLS is asked for.
    from supervisor.ground.net.tls import certificate_context

    if not pairs:
        yield Problem(("certificates",), "at least one certificate is needed")
    for number, one in enumerate(pairs):
        try:
            certificate_context(one.pair())
        except ValueError as error:
            yield Problem(("certificates", number), str(error))


def unbelievable(authorities: File, key: str) -> Iterable[Problem]:
    """What is wrong with a file of authorities that vouch for clients."""
    from cryptography import x509

    try:
        x509.load_pem_x509_certificates(authorities.data)
    except ValueError:
        yield Problem((key,), "no certificates of authorities in PEM")


def certificates(config: Any) -> Iterator[tuple[Path, CertificateTable]]:
    """Every pair of a configuration, with its key path."""
    for path, table in tables(config.tiers, ()):
        if isinstance(table, CertificateTable):
            yield path, table


def with_files(config: Any, files: Mapping[FilePath, bytes]) -> Any:
    """The same configuration, with other contents of these files; equal parts stay the same objects."""
    return attrs.evolve(config, tiers=_with_files(config.tiers, files))


def _with_files(value: Any, files: Mapping[FilePath, bytes]) -> Any:
    if isinstance(value, File):
        data = files.get(value.path, value.data)
        return value if data == value.data else attrs.evolve(value, data=data)
    if isinstance(value, Mapping):
        mapped = {name: _with_files(item, files) for name, item in value.items()}
        return value if all(mapped[name] is value[name] for name in value) else mapped
    if isinstance(value, tuple):
        items = tuple(_with_files(item, files) for item in value)
        return value if all(new is old for new, old in zip(items, value, strict=True)) else items
    if attrs.has(type(value)):
        fields = {field.name: getattr(value, field.name) for field in attrs.fields(type(value)) if field.init}
        changed = {name: new for name, old in fields.items() if (new := _with_files(old, files)) is not old}
        return attrs.evolve(value, **{name.lstrip("_"): new for name, new in changed.items()}) if changed else value
    return value
