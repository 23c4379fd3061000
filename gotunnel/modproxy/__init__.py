"""The module proxy: what the GOPROXY protocol says and how its files are checked."""

STRANGER = (
    b"404 page not found\n"  # the answer, with 404, to who doesn't know a path's secret; `resume` waits on it
)
