"""HTTP at the edge: translate a request, call one flow, translate back. No SQL and no rules of its own."""
