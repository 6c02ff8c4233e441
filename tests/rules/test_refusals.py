"""The tables of errors and statuses."""

import pytest

from spotokend.rules.refusals import (
    CERTIFICATES,
    HINTS,
    REFUSALS,
    STATUSES,
    Kind,
    Refusal,
    Status,
    by_status,
    certificate,
    refusal,
)


@pytest.mark.parametrize("row", REFUSALS, ids=lambda row: f"{row.error}-{row.says}")
def test_each_row_can_be_reached(row: Refusal):
    """A description that holds just what a row names gets that row: none hides another."""
    assert refusal(row.error, f"Oh: {row.says.upper()}.") == row


@pytest.mark.parametrize("error", sorted({row.error for row in REFUSALS}))
def test_each_error_has_a_row_for_any_description(error: str):
    """A description that nobody has seen, or none, changes the words, never the kind."""
    kinds = {row.kind for row in REFUSALS if row.error == error}
    unseen = [refusal(error, description) for description in ("never seen", "", None)]
    assert [{row.kind} for row in unseen if row] == [kinds] * 3


def test_an_error_that_is_not_in_the_table():
    """What isn't known is said to be so."""
    assert refusal("bad_weather", "invalid_grant") is None


@pytest.mark.parametrize("row", STATUSES, ids=lambda row: str(row.statuses.start))
def test_each_range_of_statuses_can_be_reached(row: Status):
    """No range of statuses hides a later one completely."""
    assert row in {by_status(status) for status in row.statuses}


def test_each_number_has_a_row():
    """A status that no standard knows is in doubt, as one of a broken server."""
    assert [by_status(status) for status in (-1, 0, 199, 600, 99_999)] == [STATUSES[-1]] * 5


def test_each_row_names_its_source():
    """No row without words for people and the place where it was seen or defined."""
    assert [row for row in (*REFUSALS, *STATUSES) if not (row.words and row.source)] == []


@pytest.mark.parametrize(
    ("number", "cure"),
    [
        (9, "is this host's clock right? It says 1970-01-01"),
        (10, "if this host's clock is right, which says 1970-01-01"),
        (18, "name it in SSL_CERT_FILE and start the daemon anew"),
        (19, "name it in SSL_CERT_FILE and start the daemon anew"),
        (20, "name it in SSL_CERT_FILE and start the daemon anew"),
        (62, "or correct the URLs of the client"),
        (64, "or correct the URLs of the client"),
    ],
)
def test_a_certificate_that_proves_nothing_has_a_cure(number: int, cure: str):
    """Time, name and signature have one each: none sends the user to the wrong place."""
    words = certificate(number, peer="accounts.example", said="so", today="1970-01-01")
    assert words.endswith(cure)
    assert "accounts.example" in words


def test_a_certificate_nobody_has_numbered():
    """What isn't in the table is about the signature, and is told in OpenSSL's words."""
    words = certificate(max(CERTIFICATES) + 1000, peer="a", said="never seen", today="")
    assert "the certificate of a is not trusted (never seen)" in words


def test_what_a_login_does_not_cure_has_a_hint():
    """Configuration and defects have a cure with a command."""
    assert {kind: "spotokend reload" in hint for kind, hint in HINTS.items()} == {
        Kind.CONFIGURATION: True,
        Kind.DEFECT: True,
    }
