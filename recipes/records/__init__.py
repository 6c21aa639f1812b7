"""What stages hand on and run folders keep, as typed records; defined, written and read here alone."""
