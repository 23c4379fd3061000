"""The module proxy: what the GOPROXY protocol says and how its files are checked."""
