#!/bin/sh
# Ten minutes of fuzzing decode, plan and crop; it ends at the first fault.
set -eu
cd "$(dirname "$0")/.."
exec make fuzz FUZZ_SECONDS=600
