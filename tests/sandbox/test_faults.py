"""What each kind of fault does to a request, and whom it strikes."""

import json

import pytest

from spotokend.sandbox.faults import MOST_FAULTS, Body, Fault, Faults, Kind
from spotokend.sandbox.messages import Cut, Request, Response, json_response

TOKEN = Request(method="POST", path="/api/token")
ME = Request(method="GET", path="/v1/me")
TRUE = json_response(200, {"access_token": "access-1"})


def apply(request=TOKEN, **fields):
    """The response under a fault, and how often the request was carried out."""
    served = []

    def serve():
        served.append(request)
        return TRUE

    return Fault(**fields).apply(request, serve), len(served)


def strikes(faults, request=TOKEN, client=None, user=None):
    switched = faults.next_for(request, client=client, user=user)
    return None if switched is None else switched.id


@pytest.mark.parametrize(
    ("fields", "response", "served"),
    [
        ({"kind": "slow", "seconds": 3}, {"delay": 3.0, "body": TRUE.body, "status": 200}, 1),
        ({"kind": "truncate"}, {"body": TRUE.body[: len(TRUE.body) // 2], "status": 200}, 1),
        ({"kind": "break"}, {"body": TRUE.body, "cut": Cut.HALFWAY}, 1),
        ({"kind": "cut"}, {"cut": Cut.UNANSWERED}, 0),
        ({"kind": "cut", "served": True, "seconds": 1}, {"cut": Cut.UNANSWERED, "delay": 1.0}, 1),
        ({"kind": "hang"}, {"cut": Cut.UNANSWERED}, 0),
        ({"kind": "hang", "served": True}, {"cut": Cut.NO, "body": TRUE.body}, 1),
        ({"kind": "answer"}, {"status": 503, "delay": 0.0}, 0),
        ({"kind": "answer", "served": True, "seconds": 2}, {"status": 503, "delay": 2.0}, 1),
    ],
)
def test_what_each_kind_does(fields, response, served):
    """The response, its delivery, and whether the grant was used."""
    actual, count = apply(**fields)
    assert {name: getattr(actual, name) for name in response} == response
    assert count == served


@pytest.mark.parametrize(
    ("fields", "content_type", "body"),
    [
        ({}, "application/json", '{"error":"server_error"}'),
        (
            {"status": 400, "error": "invalid_grant", "description": "Refresh token revoked"},
            "application/json",
            '{"error":"invalid_grant","error_description":"Refresh token revoked"}',
        ),
        (
            {"status": 502, "body": "text"},
            "text/plain",
            (
                "upstream connect error or disconnect/reset before headers."
                " reset reason: connection termination"
            ),
        ),
        ({"status": 502, "body": "empty"}, "text/plain", ""),
        ({"status": 403, "body": "text", "description": "Not you"}, "text/plain", "Not you"),
    ],
)
def test_false_answers(fields, content_type, body):
    """A false invalid_grant, and what Spotify's own proxies say."""
    response, _ = apply(kind="answer", **fields)
    assert dict(response.headers)["content-type"] == content_type
    assert response.body.decode() == body


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (200, "Log in to this network"),
        (403, "does not have permission to get URL /api/token from this server"),
        (502, "Bad Gateway"),
        (599, "Status 599"),
    ],
)
def test_false_pages(status, words):
    """A captive portal, a blocked network, a gateway."""
    response, _ = apply(kind="answer", status=status, body="html")
    assert dict(response.headers)["content-type"].startswith("text/html")
    assert words in response.body.decode()


def test_the_api_has_its_own_shape_of_errors():
    """Status and message inside the error."""
    response, _ = apply(ME, kind="answer", path="/v1/", status=429, retry_after=13749)
    assert json.loads(response.body) == {"error": {"status": 429, "message": "Too Many Requests"}}
    assert ("retry-after", "13749") in response.headers
    response, _ = apply(ME, kind="answer", path="/v1/", status=503, description="gone")
    assert json.loads(response.body)["error"]["message"] == "gone"
    response, _ = apply(ME, kind="answer", path="/v1/", status=429, reason="QUOTA_EXCEEDED")
    assert json.loads(response.body)["error"]["reason"] == "QUOTA_EXCEEDED"


@pytest.mark.parametrize("value", ["Wed, 21 Oct 2026 07:28:00 GMT", "soon", 5])
def test_retry_after_is_sent_as_it_is(value):
    """Seconds, a date, or nonsense: clients meet all of them."""
    for body in Body:
        response, _ = apply(kind="answer", status=429, body=body, retry_after=value)
        assert ("retry-after", str(value)) in response.headers


def test_faults_are_aimed():
    """By path, client and user, in the order in which they were switched on."""
    faults = Faults(lambda: 0.0)
    bobs = faults.add(Fault(kind=Kind.CUT, user="bob"))
    apps = faults.add(Fault(kind=Kind.CUT, client="app"))
    api = faults.add(Fault(kind=Kind.CUT, path="/v1/"))
    assert strikes(faults, user="bob", client="app") == bobs
    assert strikes(faults, user="alice", client="app") == apps
    assert strikes(faults, ME) == api
    assert strikes(faults) is None


def test_a_count_runs_out_and_the_fault_stays_listed():
    """A test can ask how often it struck."""
    faults = Faults(lambda: 0.0)
    number = faults.add(Fault(kind=Kind.CUT, count=2))
    assert [strikes(faults) for _ in range(3)] == [number, number, None]
    assert faults.to_json()[0]["struck"] == 2
    assert faults.holds(number)


def test_a_probability_is_compared_with_the_dice():
    """Half of the time: 0.4 strikes, 0.5 doesn't."""
    dice = iter([0.4, 0.5])
    faults = Faults(lambda: next(dice))
    number = faults.add(Fault(kind=Kind.CUT, probability=0.5))
    assert [strikes(faults), strikes(faults)] == [number, None]


def test_faults_are_switched_off():
    """One by one, all, or in exchange for others; whoever waits is told each time."""
    faults, told = Faults(lambda: 0.0), []
    faults.clear()  # nobody waits yet
    faults.changed = lambda: told.append(len(faults.to_json()))
    first = faults.add(Fault(kind=Kind.HANG))
    faults.add(Fault(kind=Kind.HANG))
    assert faults.remove(first)
    assert not faults.remove(first)
    ids = faults.put([Fault(kind=Kind.CUT)])
    assert [switched["id"] for switched in faults.to_json()] == ids
    faults.clear()
    assert faults.to_json() == []
    assert told == [1, 1, 0, 0]


def test_there_are_not_too_many():
    """A list that a loop fills by mistake ends."""
    faults = Faults(lambda: 0.0)
    cut = Fault(kind=Kind.CUT)
    with pytest.raises(ValueError, match="at most 64 faults, not 65"):
        faults.put([cut] * (MOST_FAULTS + 1))
    faults.put([cut] * MOST_FAULTS)
    with pytest.raises(ValueError, match="remove some first"):
        faults.add(cut)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "a fault is a JSON object"),
        ({}, "kind: one of answer, truncate, slow, hang, cut, break is needed"),
        ({"kind": "explode"}, "kind: one of"),
        ({"kind": "cut", "wehn": 1}, "no field 'wehn'; there are kind"),
        ({"kind": "cut", "status": 500}, "status: has no meaning for the kind cut"),
        ({"kind": "hang", "seconds": 5}, "seconds: has no meaning for the kind hang"),
        ({"kind": "slow"}, "seconds: how slow"),
        ({"kind": "slow", "seconds": 3601}, "at most 3600"),
        ({"kind": "cut", "count": 0}, "count: a whole number from 1"),
        ({"kind": "cut", "probability": 2}, "probability: a number from 0 to 1"),
        ({"kind": "cut", "served": 1}, "served: true or false"),
        ({"kind": "answer", "status": 100}, "status: a whole number from 200"),
        ({"kind": "answer", "retry_after": " 5"}, "retry_after: what fits into a header"),
        ({"kind": "answer", "retry_after": "č"}, "retry_after: what fits into a header"),
        ({"kind": "answer", "retry_after": True}, "retry_after: a string"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(value, words):
    """A fault with a misspelt or useless field would look as if it did something."""
    with pytest.raises(ValueError, match=words):
        Fault.from_json(value)


def test_json_there_and_back():
    """What is shown can be sent again."""
    fault = Fault(kind=Kind.ANSWER, status=429, retry_after="5", count=3, user="bob")
    assert Fault.from_json(fault.to_json()) == fault
    assert set(Fault(kind=Kind.HANG).to_json()) == {
        "kind", "path", "client", "user", "count", "probability", "served",
    }  # fmt: skip
    assert Response(status=0).outcome == "0"
