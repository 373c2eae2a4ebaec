#!/bin/sh
# The short form of the system test, for make check.
exec python3 -B "$(dirname "$0")/system.py" --short
