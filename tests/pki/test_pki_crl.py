"""The CRL, read back by cryptography and by openssl."""

import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.errors import InternalError
from broker.pki.authority import pem
from broker.pki.chain import utc
from broker.pki.crl import sign_crl
from broker.pki.issuer import Issuer
from broker.pki.request import parse_request
from tests.pki.making import (
    DAY,
    NOW,
    authority,
    csr,
    issuer,
    leaf_profile,
    member_key,
)

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not on PATH")


def _crl(*revoked: tuple[int, int]) -> x509.CertificateRevocationList:
    der = sign_crl(issuer(), revoked, number=7, now=NOW, next_update=NOW + DAY)
    return x509.load_der_x509_crl(der)


def test_a_crl_says_who_signed_it_which_one_it_is_and_when_the_next_comes() -> None:
    """RFC 5280 5.1.2 and 5.2."""
    crl = _crl((5, NOW - 10))
    issuing = x509.load_der_x509_certificate(issuer().issuing_der)
    assert crl.issuer == issuing.subject
    assert crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 7
    aki = crl.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    ski = issuing.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert aki.key_identifier == ski.digest
    assert crl.last_update_utc == utc(NOW)
    assert crl.next_update_utc == utc(NOW + DAY)
    key = issuing.public_key()
    assert crl.is_signature_valid(key)  # type: ignore[arg-type]  # an EC key


def test_a_crl_lists_each_serial_once_with_its_first_time() -> None:
    """Revocation absorbs; telling it twice changes nothing."""
    crl = _crl((9, NOW - 5), (5, NOW - 1), (9, NOW - 50), (9, NOW))
    assert [(entry.serial_number, entry.revocation_date_utc) for entry in crl] == [
        (5, utc(NOW - 1)),
        (9, utc(NOW - 50)),
    ]


def test_a_crl_without_revocations_is_a_valid_crl() -> None:
    """A young mesh has nobody to revoke and still answers."""
    assert list(_crl()) == []


def test_a_large_crl_takes_linear_time() -> None:
    """Ten thousand revocations are seconds if the list is copied for each."""
    revoked = [(serial, NOW) for serial in range(1, 10_001)]
    der = sign_crl(issuer(), revoked, number=1, now=NOW, next_update=NOW + DAY)
    assert len(x509.load_der_x509_crl(der)) == 10_000


@pytest.mark.parametrize(("number", "next_update"), [(1, NOW), (1, NOW - 1), (-1, NOW + DAY)])
def test_an_impossible_crl_is_the_callers_bug(number: int, next_update: int) -> None:
    """A list that is outdated at birth locks every strict client out."""
    with pytest.raises(ValueError, match="next_update="):
        sign_crl(issuer(), [], number=number, now=NOW, next_update=next_update)


def test_a_crl_by_the_wrong_key_is_not_released() -> None:
    """As for leaves: verified before it leaves."""
    certificate = x509.load_der_x509_certificate(authority().issuing)
    broken = Issuer(authority().root, certificate, member_key())
    with pytest.raises(InternalError, match="CRL does not verify"):
        sign_crl(broken, [], number=1, now=NOW, next_update=NOW + DAY)


@needs_openssl
@pytest.mark.parametrize("revoked", [True, False])
def test_openssl_refuses_a_revoked_leaf_and_accepts_the_others(
    tmp_path: Path, *, revoked: bool
) -> None:
    """Software that knows only CRLs gets the same answer as our own doors give."""
    leaf = leaf_profile()
    der = issuer().sign_leaf(parse_request(csr()), leaf)
    crl = _crl((leaf.serial if revoked else leaf.serial ^ 1, NOW - 10))
    (tmp_path / "ca.pem").write_text(
        pem(authority().root) + pem(authority().issuing), encoding="ascii"
    )
    (tmp_path / "leaf.pem").write_text(pem(der), encoding="ascii")
    (tmp_path / "crl.pem").write_bytes(crl.public_bytes(Encoding.PEM))
    command = ["openssl", "verify", "-attime", str(NOW + 1), "-crl_check", "-CAfile", "ca.pem"]
    done = subprocess.run(
        [*command, "-CRLfile", "crl.pem", "leaf.pem"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert (done.returncode != 0) is revoked, done.stderr
    assert ("certificate revoked" in done.stderr) is revoked
