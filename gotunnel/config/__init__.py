"""Configuration (contract §4).

values.py     kinds of values: how text and TOML become a value, and how a value is shown
match.py      patterns of routes, and NO_PROXY as the go command reads it
model.py      every section and key, described once; all else comes from that table
lines.py      the line of each key of a TOML text
sources.py    TOML, environment and flags, each into a layer of values with their origins
upstreams.py  which ways out a command has
load.py       the file, the layers over one another, the checks that need more than one key
"""
