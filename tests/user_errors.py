"""How tests expect errors: see `espalier.testing.errors`."""

from espalier.testing.errors import user_error

__all__ = ["user_error"]
