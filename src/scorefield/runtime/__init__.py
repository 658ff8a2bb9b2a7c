"""The machine and the files: errors, typed options, atomic files, precision, processes, hashes of weights."""
