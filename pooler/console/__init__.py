"""The console: the databases `portway` and `pgbouncer`, which answer PgBouncer's SHOW and administration commands.

What is said stands in `grammar`, how it travels in `conversation` and `results`, what is answered in `shows` (from the
plane), `sockets` (from every worker, by `survey`) and `commands`; `session` puts them together.
"""
