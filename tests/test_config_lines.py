"""The line of each key."""

from __future__ import annotations

from gotunnel.config.lines import key_lines, line_of

TEXT = '''# a comment with [brackets] and "quotes
[pool] # more
strategy = "ordered"
probe = { url = "", every = "30s" }

[[upstream]]
name = "a # b"
via = [
  "http://h:1", # ] not the end
  'ssh://x[',
]
[[upstream]]
"name" = """
via = "not a key"
"""
via = 'x'
[upstream.sub]
k = 1
[a . "b.c"]
d.e = 1979-05-27
last = true'''


def test_keys_have_their_lines() -> None:
    lines = key_lines(TEXT)
    places = {
        ("pool",): 2,
        ("pool", "strategy"): 3,
        ("pool", "probe"): 4,
        ("upstream",): 6,
        ("upstream", 0): 6,
        ("upstream", 0, "name"): 7,
        ("upstream", 0, "via"): 8,
        ("upstream", 1): 12,
        ("upstream", 1, "name"): 13,
        ("upstream", 1, "via"): 16,
        ("upstream", 1, "sub", "k"): 18,
        ("a", "b.c", "d", "e"): 20,
        ("a", "b.c", "last"): 21,
    }
    assert {path: lines.get(path) for path in places} == places


def test_what_stands_inside_a_value_has_the_line_of_its_key() -> None:
    assert line_of(key_lines(TEXT), ("pool", "probe", "every")) == 4
    assert line_of({}, ("nothing",)) == 1
