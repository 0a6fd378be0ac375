#!/bin/sh
# manual_pages.sh PROGRAM FOLDER: writes the manual pages of the program and of each of its commands into FOLDER/man, and what completes
# its command lines in bash, zsh and fish into FOLDER/completions.
set -eu
mkdir -p "$2/man" "$2/completions"
"$1" man >"$2/man/mdm-dist.1"
"$1" man --list | while read -r name; do
    # shellcheck disable=SC2086 # "data import" is two words
    "$1" man $name >"$2/man/mdm-dist-$(echo "$name" | tr ' ' '-').1"
done
for shell in bash zsh fish; do
    "$1" completion $shell >"$2/completions/mdm-dist.$shell"
done
