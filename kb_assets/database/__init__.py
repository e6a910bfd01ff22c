"""PostgreSQL: its tables, connections, leases, and the server from the wheel."""
