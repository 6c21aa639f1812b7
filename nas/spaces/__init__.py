"""Search spaces that ship with the platform, one file each."""
