"""tgres-py: a round-robin time-series database server on PostgreSQL."""

__version__ = "0.1.0"
