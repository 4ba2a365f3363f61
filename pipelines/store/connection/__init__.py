"""The database behind the store: addresses, schema versions, errors and retries."""
