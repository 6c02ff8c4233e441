"""Floor 1, the rules: pure functions and values; no clock, no chance, no disk, no socket."""
