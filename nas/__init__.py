"""Ground floor: the language of choices, spaces and architectures; tasks, data, training, search and runs."""
