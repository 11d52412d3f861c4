"""One provider, one file: translates between our facts and what the provider says over HTTP."""
