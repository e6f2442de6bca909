"""Reconciling: what was asked for x what may be configured x what the TD has, into one verdict per field."""
