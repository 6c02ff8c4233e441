"""Where the key of the store comes from: one module a source."""
