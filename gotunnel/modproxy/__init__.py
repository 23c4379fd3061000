"""The module proxy: what the GOPROXY protocol says and how its files are checked."""

# the answer, with 404, to who doesn't know a path's secret; `resume` takes it as not yet let in
STRANGER = b"404 page not found\n"
