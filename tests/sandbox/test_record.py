"""Counters and log."""

import json

from spotokend.sandbox.record import LAST_REQUESTS, Entry, Record


def entry(**changed):
    given = {
        "at": 1.0,
        "endpoint": "POST /api/token",
        "client": "app",
        "user": "alice",
        "grant_type": "refresh_token",
        "outcome": "200",
        "note": "",
        "fault": None,
    }
    return Entry(**(given | changed))


def test_requests_are_counted_from_every_side():
    """By endpoint, client, grant type and outcome."""
    record = Record()
    record.add(entry())
    record.add(entry(outcome="cut", fault=1))
    record.add(entry(endpoint="other", client=None, grant_type=None, outcome="404"))
    assert json.loads(json.dumps(record.to_json())) == {
        "total": 3,
        "by_endpoint": {"POST /api/token": 2, "other": 1},
        "by_client": {"app": {"POST /api/token": 2}, "unknown": {"other": 1}},
        "by_grant_type": {"refresh_token": 2},
        "outcomes": {"POST /api/token": {"200": 1, "cut": 1}, "other": {"404": 1}},
    }


def test_the_log_keeps_the_last_ones():
    """Bounded, oldest first; the counters go on."""
    record = Record()
    for number in range(LAST_REQUESTS + 5):
        record.add(entry(at=float(number)))
    log = record.log()
    assert (len(log), log[0]["at"], record.total) == (LAST_REQUESTS, 5.0, LAST_REQUESTS + 5)
