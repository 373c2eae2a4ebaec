#!/bin/sh
# The boot test with the generic kernel, for make check.
exec sh "$(dirname "$0")/boot.sh" generic
