#!/bin/sh
# manual_pages.sh PROGRAM FOLDER: writes the manual page of the program and of each of its commands into FOLDER.
set -eu
"$1" man >"$2/mdm-dist.1"
for name in train "data import" "data noise" "data info" bench doctor status slurm completion; do
    # shellcheck disable=SC2086 # "data import" is two words
    "$1" man $name >"$2/mdm-dist-$(echo "$name" | tr ' ' '-').1"
done
