"""Brokers that the event stream can also go to, each behind the same small protocol."""
