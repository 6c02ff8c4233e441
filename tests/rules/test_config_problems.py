"""Mistakes are told in the order of the file, each with its line."""

from hypothesis import given
from hypothesis import strategies as st

from spotokend.rules.config.problems import Problems, dotted, line_numbers

TEXT = """\
# clients.a = "a comment"
[clients.a]  # a header
client_id = "x"

[ "accounts" . 'b.c' ]
user = "y"
scopes = [
  "z",
]
[[sinks]]
timing.nap = 3
"""


def test_dotted_keys_are_quoted_where_toml_quotes_them():
    """A name with a dot in it can't be taken for two."""
    assert dotted(("clients", "a_1-b", "scopes")) == "clients.a_1-b.scopes"
    assert dotted(("clients", "a.b")) == 'clients."a.b"'


def test_lines_of_sections_and_keys():
    """Headers, quoted parts, dotted keys; comments and other lines don't count."""
    assert line_numbers(TEXT) == {
        ("clients",): 2,
        ("clients", "a"): 2,
        ("clients", "a", "client_id"): 3,
        ("accounts",): 5,
        ("accounts", "b.c"): 5,
        ("accounts", "b.c", "user"): 6,
        ("accounts", "b.c", "scopes"): 7,
        ("sinks",): 10,
        ("sinks", "timing"): 11,
        ("sinks", "timing", "nap"): 11,
    }


@given(text=st.text(alphabet="[]=.\"'#a \n"))
def test_any_text_has_some_lines(text):
    """Finding a line never gets in the way of the message."""
    assert all(line >= 1 for line in line_numbers(text).values())


def test_all_mistakes_are_told_by_line():
    """In the file's order; a missing key at its section, and what has no place first."""
    problems = Problems()
    problems.add(("accounts", "b.c", "user"), "is wrong", "mend it")
    problems.add(("clients", "a", "flow"), "is missing", "add it")
    problems.add((), "there is something", "remove it")
    error = problems.misconfigured(TEXT, "config.toml")
    assert error.message.splitlines() == [
        "config.toml: there is something; remove it",
        "config.toml:2: clients.a.flow: is missing; add it",
        'config.toml:6: accounts."b.c".user: is wrong; mend it',
    ]
    assert error.details == {
        "problems": [
            {"key": "", "message": "there is something", "hint": "remove it"},
            {"key": "clients.a.flow", "message": "is missing", "hint": "add it"},
            {"key": 'accounts."b.c".user', "message": "is wrong", "hint": "mend it"},
        ],
        "hint": "mend config.toml, then: spotokend config check",
    }


def test_problems_are_counted():
    """None is false, as of any collection."""
    problems = Problems()
    assert not problems
    problems.add((), "there is something", "remove it")
    assert len(problems) == 1
