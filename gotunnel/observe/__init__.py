"""What happened, told to machines: `events` are the lines of `--events` (contract §6)."""
