"""What commands and runs are given: networks, images, batches to score with."""
