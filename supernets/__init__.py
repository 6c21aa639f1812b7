"""Wing: train one network that holds every candidate, and choose an architecture from it."""
