"""The machine: errors, typed options, atomic files, precision, the processes of a job, hashes of weights."""
