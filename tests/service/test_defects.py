"""Defects are told in the log alone, without what their text may quote."""

from __future__ import annotations

from spotokend.service import defects


def test_the_log_has_the_id_the_class_and_the_place_but_not_the_text():
    """An exception's text may hold whatever made it, a token for one."""
    told = []
    try:
        _ = {}["access-1"]
    except KeyError as error:
        name = defects.tell(
            lambda event, **fields: told.append((event, fields)), "token", error, account="main"
        )
    ((event, fields),) = told
    assert event == "defect"
    assert fields["id"] == name
    assert fields["kind"] == "KeyError"
    assert fields["what"] == "token"
    assert fields["account"] == "main"
    assert "test_defects.py" in str(fields["where"])
    assert "access-1" not in str(fields).replace('{}["access-1"]', "")


def test_each_has_an_id_of_its_own():
    """Two reports of users are two lines in the log."""
    error = ValueError()
    assert defects.tell(lambda *_, **__: None, "x", error) != defects.tell(
        lambda *_, **__: None, "x", error
    )
