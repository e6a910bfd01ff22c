"""What a command exits with besides the errors' own codes; the table is in the package's docstring."""

DONE = 0
UNEXPECTED = 1
USAGE = 2
QUARANTINED = 10
WITHHELD = 11
WAITING = 12
CHECK_FAILED = 13
INTERRUPTED = 130
BROKEN_PIPE = 141
TERMINATED = 143
