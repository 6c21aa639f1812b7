"""What stages hand on and run folders keep, as typed values; written and read here alone."""
