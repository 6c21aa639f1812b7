"""`nas quantize`: a network in fewer bits, kept where it wins on the device."""
