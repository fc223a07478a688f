"""One script for each claim of the README; each measures both sides in one run."""
