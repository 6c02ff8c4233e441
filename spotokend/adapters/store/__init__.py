"""The stores: one contract (``base``), kept in memory, in SQLite, and on servers of databases."""
