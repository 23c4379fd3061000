"""TOML, environment and flags: every kind of error with its exact place, and nothing but these errors."""

from __future__ import annotations

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gotunnel.config.model import KEYS, SECTIONS
from gotunnel.config.sources import Layer, read_environment, read_flags, read_toml

UPSTREAM = '[[upstream]]\nname = "a"\nvia = "ssh://bastion"\n'


def said(layer: Layer) -> list[str]:
    return [str(problem) for problem in layer.problems]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[pool]\n\nstratgy = "x"', 'c.toml:3: unknown key "stratgy" in [pool]; did you mean "strategy"?'),
        ("[pol]\n", "c.toml:1: unknown section [pol]; did you mean [pool]?"),
        ("[upstreams]\n", "c.toml:1: unknown section [upstreams]; did you mean [[upstream]]?"),
        ('\nstrategy = "ordered"', 'c.toml:2: the key "strategy" stands in no section; it belongs in [pool]'),
        ('[log]\nstall = "5s"', 'c.toml:2: unknown key "stall" in [log]; it belongs in [pool]'),
        ("[pool.probe]\nevry = 1", 'c.toml:2: unknown key "evry" in [pool.probe]; did you mean "every"?'),
        ("pool = 5", "c.toml:1: 5 where a table is wanted; write [pool]"),
        ("[[pool]]", "c.toml:1: double brackets where a table is wanted; write [pool]"),
        ("[upstream]\nname = 'a'", "c.toml:1: want [[upstream]], in double brackets, once for each"),
        ("[pool]\nstall = 5", "c.toml:2: [pool] stall: 5 is no duration; want a duration from"),
        ("[log]\nlevel = 'loud'", 'c.toml:2: [log] level: "loud" is not one of "error", "warning"'),
        (
            "[limits]\n\n\nconnections = 0",
            "c.toml:4: [limits] connections: 0 is wrong; want a whole number from 1",
        ),
        (
            "[[route]]\nmatch='10.0.0.0/33'\nto='direct'",
            'c.toml:2: [[route]] match: "10.0.0.0/33" is no CIDR;',
        ),
        ("[[route]]\nmatch=[]\nto='direct'", "c.toml:2: [[route]] match: the list is empty;"),
        ("[[route]]\nto='direct'", 'c.toml:1: [[route]]: the key "match" is missing'),
        (UPSTREAM + "x = 1", 'c.toml:4: unknown key "x" in [[upstream]]; known: name, via, tags'),
        (UPSTREAM + "[[upstream]]\nname='b'\nvia='gopher://h'", "c.toml:6: [[upstream]] via: "),
        (
            "[[upstream]]\nname='direct'\nvia='b'",
            'c.toml:2: [[upstream]] name: "direct" has a meaning of its own',
        ),
        (
            "[[upstream]]\nname='b'\nvia=['a,b']",
            "c.toml:3: [[upstream]] via: a hop of the list holds a comma;",
        ),
        (
            "[[upstream]]\nname='b'\nvia='srv://corp'",
            'c.toml:3: [[upstream]] via: "srv://corp": want srv://_SERVICE',
        ),
        ("[pool]\nstall = 5s", "c.toml:2: no TOML: "),
        ("[pool]\n[pool]", "c.toml:2: no TOML: "),
        ("a = " + "[" * 9000, "c.toml: brackets are nested too deeply"),
        ("[alert]\nsigma = " + "9" * 5000, "c.toml: no TOML: "),
    ],
)
def test_an_error_names_its_line_and_what_to_do(text: str, problem: str) -> None:
    found = said(read_toml(text, "c.toml"))
    assert len(found) == 1
    assert found[0].startswith(problem)


def test_all_problems_of_a_file_are_found_in_order() -> None:
    layer = read_toml("[log]\nlevel=1\nfrmat=2\n[pol]\n[pool]\nstall=1\n", "c.toml")
    assert [problem.origin.line for problem in layer.problems] == [2, 3, 4, 6]


def test_hops_of_a_list_become_a_chain() -> None:
    layer = read_toml("[[upstream]]\nname='b'\nvia=['http://p:3128', 'ssh://d@j:443']\n", "c.toml")
    assert layer.upstreams[0].via == "http://p:3128,ssh://d@j:443"
    assert str(layer.origins["upstream.0.via"]) == "c.toml:3"


def test_origins_are_numbered_as_the_upstreams_that_were_accepted() -> None:
    layer = read_toml("[[upstream]]\nname='bad'\nvia=3\n" + UPSTREAM, "c.toml")
    assert [upstream.name for upstream in layer.upstreams] == ["a"]
    assert str(layer.origins["upstream.0.name"]) == "c.toml:5"
    assert layer.declared == {"bad", "a"}


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("GOTUNNEL_POOL_STRATGY", "x", "unknown variable; did you mean GOTUNNEL_POOL_STRATEGY?"),
        ("GOTUNNEL_GO_ZZZZZZZZZZ", "x", "unknown variable; known: GOTUNNEL_GO_MIRRORS, GOTUNNEL_GO_PRIVATE,"),
        ("GOTUNNEL_POOL_STALL", "5", '"5" is no duration;'),
        ("GOTUNNEL_LIMITS_CONNECTIONS", "many", '"many" is wrong; want a whole number from 1'),
        ("GOTUNNEL_CACHE_OFFLINE", "maybe", '"maybe" is wrong; want true or false'),
        ("GOTUNNEL_UPSTREAM_VIA", "x", "no variable sets [[upstream]]; GOTUNNEL_VIA holds CHAINs"),
        ("GOTUNNEL_POOL_PROBE", "5s", "want a TOML table of url, every, timeout"),
        ("GOTUNNEL_LOG_LEVEL", "\udcff", '"?" is not one of'),
    ],
)
def test_a_wrong_variable_is_named(name: str, text: str, problem: str) -> None:
    found = said(read_environment({name: text}))
    assert len(found) == 1
    assert found[0].startswith(f"{name}: {problem}")


def test_every_key_has_a_variable_and_other_names_are_left_alone() -> None:
    others = ["RUN_ID", "PROXY", "CONFIG", "VIA", "SSH_KEY", "SSH_KNOWN_HOSTS", "SERVER", "SOMETHING_ELSE"]
    layer = read_environment({f"GOTUNNEL_{name}": "zzz" for name in others} | {"GOTUNNEL_POOL_STALL": " "})
    assert (layer.values, layer.problems) == ({}, [])
    for key in KEYS.values():
        assert [str(p.origin) for p in read_environment({key.variable: "\x01"}).problems] == [key.variable]


def test_a_table_in_one_variable_yields_to_the_variable_of_its_key() -> None:
    layer = read_environment(
        {"GOTUNNEL_POOL_PROBE": '{ every = "9s", timeout = "8s" }', "GOTUNNEL_POOL_PROBE_EVERY": "7s"}
    )
    assert layer.values == {"pool.probe.every": 7.0, "pool.probe.timeout": 8.0}


def test_flags_that_were_not_given_count_as_nothing() -> None:
    layer = read_flags({"log.level": None, "cache.offline": False, "retry.attempts": 2, "go.private": "a,b"})
    assert layer.values == {"retry.attempts": 2, "go.private": ("a", "b")}
    assert said(read_flags({"log.level": "loud"}))[0].startswith('--log-level: "loud" is not one of')


words = st.sampled_from(
    [*SECTIONS, *(key.rpartition(".")[2] for key in KEYS), "name", "via", "to", "match", "x"]
)
scalars = st.one_of(
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(
        ["true", "1979-05-27", "''", '"5s"', '"a,b"', '"ssh://u:p@h"', '"10.0.0.0/8"', '"[::1]:0"']
    ),
    st.text(string.printable, max_size=20).map(
        lambda text: "'" + text.replace("'", "").replace("\n", "") + "'"
    ),
)
tomls = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: "[" + ", ".join(items) + "]"),
        st.dictionaries(words, inner, max_size=3).map(
            lambda table: "{" + ", ".join(f"{name} = {value}" for name, value in table.items()) + "}"
        ),
    ),
    max_leaves=6,
)
statements = st.one_of(
    words.map("[{}]".format),
    words.map("[[{}]]".format),
    st.tuples(words, tomls).map(" = ".join),
    st.text(max_size=30),
)


@settings(max_examples=300, deadline=None, database=None)
@given(st.lists(statements, max_size=8).map("\n".join))
def test_no_text_raises(text: str) -> None:
    layer = read_toml(text, "c.toml")
    for line in said(layer):
        assert line.startswith("c.toml")
        assert line.isprintable()


@settings(max_examples=200, deadline=None, database=None)
@given(
    st.sampled_from([key.variable for key in KEYS.values()] + ["GOTUNNEL_POOL_PROBE"]),
    st.one_of(tomls, st.text()),
)
def test_no_variable_raises(name: str, text: str) -> None:
    for line in said(read_environment({name: text})):
        assert line.startswith(f"{name}: ")
