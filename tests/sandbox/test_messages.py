"""Requests and responses as values."""

import pytest

from spotokend.sandbox.messages import (
    MOST_PARAMETERS,
    Cut,
    Malformed,
    Request,
    Response,
    json_response,
    phrase_of,
    text_response,
)


def test_parameters_are_decoded_and_empty_ones_are_omitted():
    """An empty parameter counts as one that was not sent (RFC 6749, 3.1)."""
    request = Request(method="GET", path="/", query="a=b%20c&state=&d=e+f")
    assert request.parameters() == {"a": "b c", "d": "e f"}


def test_a_repeated_parameter_is_refused():
    """Which of two values counts would be anybody's guess."""
    request = Request(method="POST", path="/", body=b"code=1&code=2")
    with pytest.raises(Malformed, match="twice"):
        request.form()


def test_too_many_parameters_are_refused():
    """A body of ampersands costs nothing."""
    request = Request(method="POST", path="/", body=b"&".join([b"a=1"] * (MOST_PARAMETERS + 1)))
    with pytest.raises(Malformed, match="more than 100"):
        request.form()


def test_json_is_compact_utf8_and_never_stored():
    """As Spotify writes it, with the headers that RFC 6749, 5.1 requires."""
    response = json_response(200, {"name": "Č", "n": 1}, ("x-more", "1"))
    assert response.body == '{"name":"Č","n":1}'.encode()
    assert response.headers == (
        ("content-type", "application/json"),
        ("cache-control", "no-store"),
        ("pragma", "no-cache"),
        ("x-more", "1"),
    )


def test_text_is_utf8():
    """Plain text says its encoding."""
    response = text_response(404, "č")
    assert (response.status, response.body) == (404, "č".encode())
    assert ("content-type", "text/plain; charset=utf-8") in response.headers


def test_every_status_has_words():
    """Also those that nobody has defined."""
    assert [phrase_of(503), phrase_of(599)] == ["Service Unavailable", "Status 599"]


@pytest.mark.parametrize(
    ("response", "outcome"),
    [
        (Response(status=200), "200"),
        (Response(status=0, cut=Cut.UNANSWERED), "cut"),
        (Response(status=200, cut=Cut.HALFWAY), "broken"),
        (Response(status=0, cut=Cut.UNANSWERED, held_by=1), "held"),
    ],
)
def test_the_outcome_is_what_the_client_meets(response, outcome):
    """The counters tell apart what a status alone would not."""
    assert response.outcome == outcome
