"""The only place with SQL: tables, statements and the two databases that run them."""
