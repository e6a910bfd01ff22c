"""What commands exit with, besides the errors' own codes: see the table in `kb_assets.cli`."""

DONE = 0
UNEXPECTED = 1
USAGE = 2
NOT_FOUND = 9
QUARANTINED = 10
WITHHELD = 11
WAITING = 12
CHECK_FAILED = 13
INTERRUPTED = 130
BROKEN_PIPE = 141
