#!/bin/sh
# Runs a program that is built with ThreadSanitizer, one thread for OpenMP, which the sanitizer does not follow.
# Where the addresses that the system draws leave the sanitizer no room, they are not drawn; 77 (skipped) where
# that is forbidden.
probe=$1
shift
export OMP_NUM_THREADS=1
if "$probe"; then
    exec "$@"
elif setarch -R "$probe"; then
    exec setarch -R "$@"
fi
echo "ThreadSanitizer cannot run here: lower vm.mmap_rnd_bits to 28" >&2
exit 77
