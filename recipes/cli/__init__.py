"""The command line `nas`, the only home of typer."""
