"""Floor 3, the service: the loops that drive rules and adapters."""
