"""From picture files to pixels: finding, reading, decoding all at once or when a batch asks for them."""
