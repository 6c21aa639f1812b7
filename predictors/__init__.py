"""Wing: guess an architecture's accuracy without training it."""
