"""The configuration: values, how TOML becomes them, and what a reload changes."""
