#!/bin/sh
# The boot test with the cloud kernel, for make check.
exec sh "$(dirname "$0")/boot.sh" cloud
