"""A training, a validation and a report from start to end; only this package knows every stage."""
