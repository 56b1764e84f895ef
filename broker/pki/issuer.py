"""The open issuing CA: the only object in the pool that can sign.

Order rules: lint, sign, read the finished certificate back and verify it, release. A leaf whose
signature or content is not exactly what was ordered never leaves (a flipped bit in memory during
signing would otherwise also reveal key bits).

Full path validation of each leaf is not repeated here: the chain above the issuing key is checked
once when it is opened, and the lint holds the leaf to the same name constraints; tests run the
library's path validator and openssl over what comes out.
"""

import functools

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker.errors import InternalError, LedgerDamagedError
from broker.pki.chain import (
    PARSE_ERRORS,
    check_authority,
    check_issued,
    naive_utc,
    p256_key,
    read_certificate,
    utc,
)
from broker.pki.profile import (
    COMMON_NAME_LENGTH_MAX,
    IssuerFacts,
    LeafProfile,
    address_of,
    facts_of,
    lint_leaf,
)
from broker.pki.request import CertificateRequest

Extensions = list[x509.Extension[x509.ExtensionType]]

_SHA256 = hashes.SHA256()
_ECDSA = ec.ECDSA(_SHA256)


class Issuer:
    """An issuing certificate with its key.

    Attributes:
        root_der: The root certificate.
        issuing_der: The issuing certificate.
        not_after: Last second of the issuing certificate.
        facts: What the issuing certificate permits.
    """

    def __init__(
        self, root_der: bytes, issuing: x509.Certificate, key: ec.EllipticCurvePrivateKey
    ) -> None:
        self.root_der = root_der
        self.issuing_der = issuing.public_bytes(Encoding.DER)
        self.facts: IssuerFacts = facts_of(issuing)
        self.not_after = self.facts.not_after
        self._key = key
        self._public = p256_key(issuing)
        self._name = issuing.subject
        self._constant = _constant_extensions(issuing)

    @classmethod
    def open(cls, *, root: bytes, issuing: bytes, issuing_key: bytes) -> "Issuer":
        """Return the issuer made of two certificates and a PKCS #8 key, all DER.

        Raises:
            LedgerDamagedError: A part is unreadable, the issuing certificate is not below the
                root, or the key is not the certificate's.
        """
        try:
            certificate = _checked_issuing(root, issuing)
            facts_of(certificate)
        except ValueError as error:
            raise LedgerDamagedError(f"the issuing certificate cannot be used: {error}") from None
        key = _private_key(issuing_key)
        if key.public_key() != certificate.public_key():
            raise LedgerDamagedError("the issuing key does not belong to the issuing certificate")
        return cls(root, certificate, key)

    def sign_leaf(self, request: CertificateRequest, leaf: LeafProfile) -> bytes:
        """Return the signed leaf as DER.

        Args:
            request: A parsed request; only its key enters the certificate.
            leaf: What the certificate says; its serial must be recorded before.

        Raises:
            NameNotAllowedError: A name is malformed or outside the name constraints.
            CSRRejectedError: Something else in the profile is impossible.
            InternalError: The finished certificate is not what was ordered; it is not released.
        """
        lint_leaf(leaf, self.facts)
        extensions = self._extensions(request, leaf)
        finished = x509.CertificateBuilder(
            issuer_name=self._name,
            subject_name=_subject(leaf),
            public_key=request.public_key,
            serial_number=leaf.serial,
            not_valid_before=naive_utc(leaf.not_before),
            not_valid_after=naive_utc(leaf.not_after),
            extensions=extensions,
        ).sign(self._key, _SHA256)
        self._check_finished(finished, leaf, extensions)
        return finished.public_bytes(Encoding.DER)

    def sign(self, message: bytes) -> bytes:
        """Return the DER ECDSA-SHA256 signature over `message`."""
        return self._key.sign(message, _ECDSA)

    def sign_revocations(
        self, draft: x509.CertificateRevocationListBuilder
    ) -> x509.CertificateRevocationList:
        """Return `draft` signed in the name of this issuer, and verified.

        Raises:
            InternalError: The finished list does not verify; it is not released.
        """
        finished = draft.issuer_name(self._name).sign(self._key, _SHA256)
        if not finished.is_signature_valid(self._public):
            raise InternalError("the finished CRL does not verify; it was not released")
        return finished

    def authority_key_identifier(self) -> x509.AuthorityKeyIdentifier:
        """Return the AKI of everything this issuer signs."""
        value = self._constant[0].value
        assert isinstance(value, x509.AuthorityKeyIdentifier)  # first by construction
        return value

    def _extensions(self, request: CertificateRequest, leaf: LeafProfile) -> Extensions:
        identifier = x509.SubjectKeyIdentifier(bytes.fromhex(request.key_hash))
        sans = x509.SubjectAlternativeName([_general_name(san) for san in leaf.sans])
        extensions = [*self._constant, _extension(identifier), _extension(sans)]
        if leaf.crl_url:
            extensions.append(_crl_point(leaf.crl_url))
        return extensions

    def _check_finished(
        self, finished: x509.Certificate, leaf: LeafProfile, extensions: Extensions
    ) -> None:
        # Signing already parsed the finished DER again; everything here reads that, not the order.
        try:
            self._public.verify(finished.signature, finished.tbs_certificate_bytes, _ECDSA)
        except InvalidSignature:
            raise InternalError("the finished certificate does not verify; not released") from None
        as_ordered = (
            finished.serial_number == leaf.serial
            and finished.not_valid_after_utc == utc(leaf.not_after)
            and list(finished.extensions) == extensions
        )
        if not as_ordered:
            raise InternalError("the finished certificate differs from its profile; not released")


def _checked_issuing(root: bytes, issuing: bytes) -> x509.Certificate:
    root_certificate = read_certificate(root)
    certificate = read_certificate(issuing)
    check_authority(root_certificate)
    check_authority(certificate)
    check_issued(certificate, root_certificate)
    return certificate


def _private_key(der: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_der_private_key(der, password=None)
    except PARSE_ERRORS:
        raise LedgerDamagedError("the issuing key is not a readable PKCS #8 key") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise LedgerDamagedError("the issuing key is not an ECDSA key")
    return key


def _constant_extensions(issuing: x509.Certificate) -> Extensions:
    """Return the extensions that all leaves of an issuer share; the AKI is the first."""
    identifier = issuing.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    return [
        _extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)),
        _extension(x509.BasicConstraints(ca=False, path_length=None), critical=True),
        _extension(_leaf_usage(), critical=True),
        _extension(x509.ExtendedKeyUsage(usages)),
    ]


def _leaf_usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _extension(
    value: x509.ExtensionType, *, critical: bool = False
) -> x509.Extension[x509.ExtensionType]:
    return x509.Extension(value.oid, critical, value)


@functools.lru_cache(maxsize=8)
def _crl_point(url: str) -> x509.Extension[x509.ExtensionType]:
    point = x509.DistributionPoint([x509.UniformResourceIdentifier(url)], None, None, None)
    return _extension(x509.CRLDistributionPoints([point]))


@functools.lru_cache(maxsize=8)
def _organization(mesh_id: str) -> x509.NameAttribute[str]:
    return x509.NameAttribute(NameOID.ORGANIZATION_NAME, f"certmesh {mesh_id}")


def _subject(leaf: LeafProfile) -> x509.Name:
    attributes = [
        _organization(leaf.mesh_id),
        x509.NameAttribute(NameOID.SERIAL_NUMBER, leaf.member_id),
    ]
    if len(leaf.host) <= COMMON_NAME_LENGTH_MAX:
        attributes.append(x509.NameAttribute(NameOID.COMMON_NAME, leaf.host))
    return x509.Name(attributes)


def _general_name(san: str) -> x509.GeneralName:
    address = address_of(san)
    return x509.DNSName(san) if address is None else x509.IPAddress(address)
