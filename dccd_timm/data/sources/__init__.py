"""Where images come from, one file an origin."""
