"""The maker of the outputs beside it: see `__main__`."""
