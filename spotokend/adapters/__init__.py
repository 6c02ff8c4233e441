"""Floor 2, the adapters: each touches one outside thing, and none imports another."""
