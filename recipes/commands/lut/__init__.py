"""`nas lut`: tables of what the blocks of a space cost on a device."""
