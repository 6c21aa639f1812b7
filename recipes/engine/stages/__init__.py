"""The stages of a run, one file each: a function from the context to JSON outputs."""
